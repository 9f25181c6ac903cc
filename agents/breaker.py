"""A circuit breaker for one dependency: after a run of failures it stops asking, then probes once."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass
class Permit:
    """Leave to make one call; give exactly one verdict, later ones are ignored."""

    breaker: "CircuitBreaker" = field(repr=False)
    generation: int
    _used: bool = False

    def success(self) -> None:
        """The dependency answered, be it with a refusal of our request."""
        self._give(True)

    def failure(self) -> None:
        """The dependency was not able to answer."""
        self._give(False)

    def release(self) -> None:
        """Nothing was learned, for example on cancellation: a probe may be made again at once."""
        self._give(None)

    def _give(self, healthy: bool | None) -> None:
        if not self._used:
            self._used = True
            self.breaker.record(self.generation, healthy)


class CircuitBreaker:
    """Opens after `failures` failures in a row, or when half of the last `window` calls failed.

    While open it refuses for `cooldown` seconds; then it is half open and lets exactly one probe pass. The
    probe's success closes it, its failure opens it for another `cooldown`. A verdict of a call that began
    before the last change of state is ignored: it tells of a past the breaker has already judged.

    For use on one event loop: no method awaits, so none needs a lock.

    Args:
        name: the dependency, for logs and metrics.
        clock: seconds, monotonic.
        failures: length of the run of failures that opens it.
        cooldown: seconds from opening to the probe.
        window: number of recent calls that the share of failures is taken of; judged only when full.
    """

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        *,
        failures: int = 5,
        cooldown: float = 15.0,
        window: int = 20,
    ) -> None:
        self.name = name
        self._clock = clock
        self._failures = failures
        self._cooldown = cooldown
        self._recent: deque[bool] = deque(maxlen=window)
        self._run = 0
        self._generation = 0
        self._state: State = "closed"
        self._opened_at = 0.0
        self._probing = False

    @property
    def state(self) -> State:
        """The state now; an open breaker whose cooldown is over shows as half open."""
        if self._state == "open" and self._clock() - self._opened_at >= self._cooldown:
            return "half_open"
        return self._state

    def acquire(self) -> Permit | None:
        """Leave for one call, or None where the dependency must not be asked now."""
        state = self.state
        if state == "open" or (state == "half_open" and self._probing):
            return None
        if state == "half_open":
            if self._state == "open":
                self._change("half_open")
            self._probing = True
        return Permit(self, self._generation)

    def record(self, generation: int, healthy: bool | None) -> None:
        """Take a permit's verdict; None means that nothing was learned."""
        if generation != self._generation:
            return
        if self._state == "half_open":
            self._probing = False
            if healthy is not None:
                self._change("closed" if healthy else "open")
            return
        if healthy is None:
            return
        self._recent.append(healthy)
        self._run = 0 if healthy else self._run + 1
        full = len(self._recent) == self._recent.maxlen
        if self._run >= self._failures or (full and self._recent.count(False) * 2 >= len(self._recent)):
            self._change("open")

    def _change(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._probing = False
        if state == "open":
            self._opened_at = self._clock()
        if state == "closed":
            self._run = 0
            self._recent.clear()
