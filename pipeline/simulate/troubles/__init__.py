"""The troubles: each changes one thing in a healthy room, for a while, and counts what it did."""

from typing import Final

from pipeline.simulate.troubles.base import Fault, Place
from pipeline.simulate.troubles.bots import (
    BotBurst,
    ClickFarm,
    DeviceFarm,
    IncentiveHunters,
    SharedAddress,
    ViewBotsFixed,
    ViewBotsRandom,
)
from pipeline.simulate.troubles.chorus import (
    AngryChat,
    ComplaintHost,
    ComplaintLogistics,
    ComplaintPrice,
    ComplaintQuality,
)
from pipeline.simulate.troubles.crowds import Campus, CarrierNat, Celebrity, CrowdEcho, Lottery, OrganicSurge
from pipeline.simulate.troubles.outages import FeedDead
from pipeline.simulate.troubles.prices import CostRise
from pipeline.simulate.troubles.sales import LandingPage
from pipeline.simulate.troubles.script import ParaphraseComments, ScriptComments

FAULTS: Final[dict[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        BotBurst,
        ViewBotsFixed,
        ViewBotsRandom,
        DeviceFarm,
        SharedAddress,
        ClickFarm,
        IncentiveHunters,
        ScriptComments,
        ParaphraseComments,
        CrowdEcho,
        Lottery,
        Celebrity,
        OrganicSurge,
        CarrierNat,
        Campus,
        AngryChat,
        ComplaintPrice,
        ComplaintQuality,
        ComplaintLogistics,
        ComplaintHost,
        LandingPage,
        CostRise,
        FeedDead,
    )
}

__all__ = ["FAULTS", "CostRise", "Fault", "FeedDead", "LandingPage", "Place"]
