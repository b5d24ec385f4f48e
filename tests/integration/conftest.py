"""What the tests that need a broker share: one embedded broker a session, and names nobody else uses."""

import itertools
import re
from collections.abc import Iterator

import pytest

from agents.broker import EmbeddedBroker
from tests.integration.deployment import Cluster, Embedded

_n_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """One embedded broker for the whole session; it starts empty and takes 0.1 s."""
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Give an empty embedded broker of the test's own; `tests/kafka` gives the same tests a real Kafka."""
    with EmbeddedBroker() as running:
        yield Embedded(running)


@pytest.fixture
def unique_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for this test's topics, groups and application ids: the session's tests share one broker."""
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")
    return f"t{next(_n_prefixes)}-{test[:60]}"
