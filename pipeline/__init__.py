"""A room's log in; signals, anomalies and bid commands out."""

from pipeline.engine import Engine, Record
from pipeline.output import Output

__all__ = ["Engine", "Output", "Record"]
