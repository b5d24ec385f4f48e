"""Rooms with known truth: a seeded world that answers bids, has troubles and writes down which."""

from pipeline.simulate.ledger import Cohort, Order
from pipeline.simulate.market import Applied
from pipeline.simulate.parameters import DEFAULT_START_TS, Parameters
from pipeline.simulate.scenarios import SCENARIOS, Scenario, UnknownScenarioError
from pipeline.simulate.settings import ParameterError, with_values
from pipeline.simulate.timeline import Arrival, Event
from pipeline.simulate.truth import Books, Label, Trouble
from pipeline.simulate.world import World, play, simulate
from pipeline.simulate.worlds import WORLDS, NamedWorld, UnknownWorldError, parameters_of, world_named

__all__ = [
    "DEFAULT_START_TS",
    "SCENARIOS",
    "WORLDS",
    "Applied",
    "Arrival",
    "Books",
    "Cohort",
    "Event",
    "Label",
    "NamedWorld",
    "Order",
    "ParameterError",
    "Parameters",
    "Scenario",
    "Trouble",
    "UnknownScenarioError",
    "UnknownWorldError",
    "World",
    "parameters_of",
    "play",
    "simulate",
    "with_values",
    "world_named",
]
