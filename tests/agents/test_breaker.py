"""The circuit breaker: its states, its one probe, and rules that hold whatever the order of events."""

from hypothesis import given
from hypothesis import strategies as st

from agents.breaker import CircuitBreaker, Permit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker("x", clock)
    for _ in range(5):
        take(breaker).failure()
    return breaker


def take(breaker: CircuitBreaker) -> Permit:
    permit = breaker.acquire()
    assert permit is not None
    return permit


def state(breaker: CircuitBreaker) -> str:
    """As a call, because mypy would take two different states of one property for a contradiction."""
    return breaker.state


def test_opens_at_the_fifth_failure_in_a_row() -> None:
    breaker = CircuitBreaker("x", Clock())
    for _ in range(4):
        take(breaker).failure()
    take(breaker).success()
    for _ in range(4):
        take(breaker).failure()
    assert state(breaker) == "closed"
    take(breaker).failure()
    assert state(breaker) == "open"
    assert breaker.acquire() is None


def test_opens_when_half_of_the_window_failed() -> None:
    breaker = CircuitBreaker("x", Clock())
    for _ in range(9):
        take(breaker).failure()
        take(breaker).success()
    take(breaker).success()
    assert state(breaker) == "closed"
    take(breaker).failure()
    assert state(breaker) == "open"


def test_one_probe_after_the_cooldown() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 14.99
    assert breaker.acquire() is None
    clock.now += 0.01
    probe = take(breaker)
    assert breaker.acquire() is None
    probe.success()
    assert state(breaker) == "closed"
    assert breaker.acquire() is not None


def test_a_failed_probe_opens_for_another_cooldown() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 15
    take(breaker).failure()
    clock.now += 14.9
    assert breaker.acquire() is None
    clock.now += 0.1
    assert breaker.acquire() is not None


def test_a_released_probe_may_be_made_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 15
    take(breaker).release()
    assert state(breaker) == "half_open"
    assert breaker.acquire() is not None


def test_a_verdict_from_before_the_opening_is_ignored() -> None:
    clock = Clock()
    breaker = CircuitBreaker("x", clock)
    early = take(breaker)
    for _ in range(5):
        take(breaker).failure()
    early.success()
    assert state(breaker) == "open"
    late = CircuitBreaker("y", clock)
    stale = take(late)
    for _ in range(5):
        take(late).failure()
    clock.now += 15
    probe = take(late)
    stale.failure()
    probe.success()
    assert state(late) == "closed"


def test_a_permit_gives_one_verdict() -> None:
    breaker = CircuitBreaker("x", Clock())
    permit = take(breaker)
    for _ in range(9):
        permit.failure()
    assert state(breaker) == "closed"


EVENTS = st.lists(
    st.tuples(st.sampled_from(["acquire", "success", "failure", "release", "wait"]), st.integers(0, 30))
)


@given(EVENTS)
def test_whatever_happens(events: list[tuple[str, int]]) -> None:
    """Open means refused until the cooldown is over, one probe at most is out, and it never locks up."""
    clock = Clock()
    breaker = CircuitBreaker("x", clock)
    out: list[Permit] = []
    opened_at = clock.now
    for event, number in events:
        before = state(breaker)
        if event == "wait":
            clock.now += number
        elif event == "acquire":
            permit = breaker.acquire()
            assert permit is not None or before != "closed"
            if permit is not None:
                assert before == "closed" or clock.now - opened_at >= 15
                out.append(permit)
                if before == "half_open":
                    assert breaker.acquire() is None
        elif out:
            getattr(out.pop(number % len(out)), event)()
        if state(breaker) == "open" and before != "open":
            opened_at = clock.now
            assert event == "failure"
    for permit in out:
        permit.release()
    clock.now += 15
    take(breaker).success()
    assert state(breaker) == "closed"
