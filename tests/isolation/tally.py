"""Counts distinct probes by kind, and keeps what leaked."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What was tried and what came through.

    Attributes:
        counts: distinct cases by kind; the same case again is not counted.
        leaks: what got through a wall, in words.
        skipped: what was not tried, by reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    _seen: set[int] = field(default_factory=set)

    def case(self, kind: str, *what: Hashable) -> bool:
        """Count a case; False where it was counted before."""
        place = hash((kind, *what))
        if place in self._seen:
            return False
        self._seen.add(place)
        self.counts[kind] += 1
        return True

    def leak(self, kind: str, *what: object) -> None:
        """A wall did not hold."""
        self.leaks.append(f"{kind}: {' '.join(map(str, what))}"[:500])

    def judge(self, held: bool, kind: str, *what: Hashable) -> None:
        """Count a case, and its leak where the wall did not hold."""
        self.case(kind, *what)
        if not held:
            self.leak(kind, *what)

    @property
    def total(self) -> int:
        return self.counts.total()
