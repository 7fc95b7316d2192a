"""What the processor has taken from the socket, where the machine tells: Linux's powercap folder (RAPL, Intel's and AMD's).

The counters are those of whole processor packages: what else runs on the machine is in them, and so is idling. Memory is not, nor
an accelerator. Reading them takes the rights of an administrator on most systems (Linux 5.10 and later, CVE-2020-8694).
"""

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6


@dataclass(frozen=True)
class _Zone:
    """One package's counter, in microjoules; it begins again at 0 after `largest`."""

    counter: Path
    largest: int


class EnergyMeter:
    """The energy counters of all processor packages together. Read it before and after; at most one turn of a counter may lie
    between the two, which at 200 watts takes 20 minutes."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = _zones(folder)

    def read(self) -> tuple[int, ...] | None:
        """The counters now; None where the machine does not tell."""
        try:
            return tuple(int(zone.counter.read_text()) for zone in self._zones) or None
        except (OSError, ValueError):
            return None

    def joules(self, before: tuple[int, ...] | None, after: tuple[int, ...] | None) -> float | None:
        """What was taken between two readings; None where there are none."""
        if before is None or after is None:
            return None
        turns = ((now - then) % (zone.largest + 1) for zone, then, now in zip(self._zones, before, after, strict=True))
        return MICRO * sum(turns)


def _zones(folder: Path) -> tuple[_Zone, ...]:
    """The packages that can be read. What is within a package, or spans the whole board, would count twice."""
    found = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        try:
            if (zone / "name").read_text().startswith("package"):
                found.append(_Zone(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())))
                found[-1].counter.read_text()
        except (OSError, ValueError):
            return ()  # with one of several packages unread, the sum would be wrong
    return tuple(found)
