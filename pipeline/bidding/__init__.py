"""From return to a bid command: one small step at a time, or a reason to hold."""

from pipeline.bidding.controller import Decision, decide
from pipeline.bidding.guardrails import GATES, Gate
from pipeline.bidding.plan import OpenCommand, Plan
from pipeline.bidding.situation import Emergency, Situation

__all__ = ["GATES", "Decision", "Emergency", "Gate", "OpenCommand", "Plan", "Situation", "decide"]
