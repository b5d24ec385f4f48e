"""Rooms with known truth: a seeded world that answers bids, has troubles and writes down which."""

from pipeline.simulate.ledger import Cohort, Order
from pipeline.simulate.market import Applied
from pipeline.simulate.parameters import DEFAULT_START_TS, Parameters
from pipeline.simulate.scenarios import SCENARIOS, Scenario, UnknownScenarioError
from pipeline.simulate.settings import ParameterError, with_values
from pipeline.simulate.timeline import Arrival, Event
from pipeline.simulate.truth import Books, Label, Trouble
from pipeline.simulate.world import World, play, simulate

__all__ = [
    "DEFAULT_START_TS",
    "SCENARIOS",
    "Applied",
    "Arrival",
    "Books",
    "Cohort",
    "Event",
    "Label",
    "Order",
    "ParameterError",
    "Parameters",
    "Scenario",
    "Trouble",
    "UnknownScenarioError",
    "World",
    "play",
    "simulate",
    "with_values",
]
