"""A few seconds of schemathesis as three identities; ``python -m tests.fuzz.run`` does the same for all of them, and for longer."""

from collections.abc import Iterator

import pytest

from tests.fuzz.identities import NOBODY, Filled, filled
from tests.fuzz.runner import fuzz
from tests.support.servers import Addresses


@pytest.fixture(scope="module")
def world(addresses: Addresses) -> Iterator[Filled]:
    with filled(addresses) as made:
        yield made


# Schemathesis asks with urllib3 and leaves a connection to the collector here and there.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("identity", [NOBODY, "owner", "read_only"])
def test_what_is_described_is_what_is_answered(addresses: Addresses, world: Filled, identity: str) -> None:
    outcome = fuzz(addresses, world, identity, max_examples=2, seconds=8)
    assert outcome.failures == []
    assert outcome.errors == []
    assert outcome.broken == {}
    assert sum(outcome.cases.values()) >= 100
    # Not all was refused at the door.
    assert outcome.statuses[200] > 0
