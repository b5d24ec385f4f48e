"""Many counters in one integer: adding two sets of them is one addition, however many there are.

A set of counters is the number sum(c_i * 2**(64 * i)): counter i is a digit of base 2**64. Sums and differences of such
numbers are sums and differences of every counter at once, also of negative ones, as long as no counter leaves
+-2**63: an event counts at most 10**12 of anything, so that takes more than eight million of the largest ones in one
session. Adding a dozen counters costs 35 ns where a loop over names costs 860, and a quiet room's bucket takes 44 to
72 bytes where a dictionary takes 184 and more. What is counted most comes first: small numbers are short.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

TOPICS: Final = ("price", "quality", "logistics", "host", "tech", "authenticity", "other")
NAMES: Final = (
    "n_enters", "n_interactions", "n_comments", "n_leaves", "n_judged", "dwell_ms", "n_bounces",
    "n_product_clicks", "n_add_to_cart", "n_scored", "sentiment_milli", "n_negative",
    "n_suspect", "n_shared_device", "n_repeats", "n_no_consent", *(f"topic:{topic}" for topic in TOPICS),
    "impressions", "clicks", "spend_minor", "n_orders_created", "n_orders_paid", "gmv_minor",
    "n_paid_attributed", "gmv_attributed", "gmv_valid", "n_refunds", "refund_minor", "refund_attributed",
    "refund_valid", "gift_minor", "gmv_costed", "refund_costed", "cost_minor",
)  # fmt: skip
"""Every counter of a window; its place is its digit. Snapshots hold these numbers: append, never reorder."""

Packed = int
"""A set of counters as one integer."""
Counts = tuple[int, ...]
"""The same unpacked, by place."""

_BITS: Final = 64
PLACE: Final = {name: place for place, name in enumerate(NAMES)}
UNIT: Final = {name: 1 << (_BITS * place) for name, place in PLACE.items()}
"""One of each counter, packed."""
(
    N_ENTERS, N_INTERACTIONS, N_COMMENTS, N_LEAVES, N_JUDGED, DWELL_MS, N_BOUNCES,
    N_PRODUCT_CLICKS, N_ADD_TO_CART, N_SCORED, SENTIMENT_MILLI, N_NEGATIVE,
    N_SUSPECT, N_SHARED_DEVICE, N_REPEATS, N_NO_CONSENT,
) = range(16)  # fmt: skip
FIRST_TOPIC: Final = 16
(
    IMPRESSIONS, CLICKS, SPEND, N_ORDERS_CREATED, N_ORDERS_PAID, GMV,
    N_PAID_ATTRIBUTED, GMV_ATTRIBUTED, GMV_VALID, N_REFUNDS, REFUND, REFUND_ATTRIBUTED, REFUND_VALID, GIFT,
    GMV_COSTED, REFUND_COSTED, COST,
) = range(FIRST_TOPIC + len(TOPICS), len(NAMES))  # fmt: skip

_N_BYTES: Final = len(NAMES) * _BITS // 8
_HALF: Final = 1 << (_BITS - 1)
_MASK: Final = (1 << _BITS) - 1
_BIAS: Final = sum(_HALF << (_BITS * place) for place in range(len(NAMES)))
"""Makes every digit positive; with its top bit turned back, a digit is a signed integer in two's complement."""
_signed: Final = Struct(f"<{len(NAMES)}q").unpack
MONEY: Final = (
    SPEND, GMV, GMV_ATTRIBUTED, GMV_VALID, REFUND, REFUND_ATTRIBUTED, REFUND_VALID, GIFT, GMV_COSTED, REFUND_COSTED,
    COST,
)  # fmt: skip
"""`gmv_costed`, `refund_costed`: of orders whose own costs are known; `cost_minor`: those costs, of what stays sold."""


def unpack(packed: Packed) -> Counts:
    """Return every counter by place.

    >>> counts = unpack(3 * UNIT["n_enters"] - UNIT["spend_minor"])
    >>> counts[N_ENTERS], counts[SPEND], counts[GMV]
    (3, -1, 0)
    """
    return _signed(((packed + _BIAS) ^ _BIAS).to_bytes(_N_BYTES, "little"))


def digit(packed: Packed, place: int) -> int:
    """Return one counter.

    >>> digit(3 * UNIT["n_enters"] - UNIT["spend_minor"], SPEND)
    -1
    """
    return ((packed + _BIAS) >> (_BITS * place) & _MASK) - _HALF


def pack(counts: dict[str, int]) -> Packed:
    """Return counters given by name as one integer.

    >>> pack({"n_enters": 2}) == 2 * UNIT["n_enters"]
    True
    """
    return sum(n * UNIT[name] for name, n in counts.items())


def only(packed: Packed, places: tuple[int, ...]) -> Packed:
    """Return the counters of some places alone, packed.

    >>> only(pack({"n_enters": 2, "gmv_minor": 5}), (GMV,)) == pack({"gmv_minor": 5})
    True
    """
    counts = unpack(packed)
    return sum(counts[place] << (_BITS * place) for place in places)
