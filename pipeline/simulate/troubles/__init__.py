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
from pipeline.simulate.troubles.delivery import (
    ContentSlump,
    CostRise,
    CreativeFatigue,
    DeliveryStopped,
    TargetingDrift,
)
from pipeline.simulate.troubles.hired import IdleAudience, SyncedPhones
from pipeline.simulate.troubles.outages import CommentFeedDead, FeedDead, SpendFeedDead, ViewFeedDead
from pipeline.simulate.troubles.records import AbsurdOrders, OrdersLate, OrdersLost, RefundWave, TrackingOutage
from pipeline.simulate.troubles.sales import Delisted, LandingPage, PaymentFailure, PriceRise, SoldOut
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
        SyncedPhones,
        IdleAudience,
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
        PaymentFailure,
        SoldOut,
        Delisted,
        PriceRise,
        RefundWave,
        CostRise,
        CreativeFatigue,
        TargetingDrift,
        ContentSlump,
        DeliveryStopped,
        FeedDead,
        ViewFeedDead,
        CommentFeedDead,
        SpendFeedDead,
        TrackingOutage,
        OrdersLate,
        OrdersLost,
        AbsurdOrders,
    )
}

__all__ = ["FAULTS", "Fault", "FeedDead", "Place"]
