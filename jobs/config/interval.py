"""How often something is done, as a person says it: in steps or in minutes."""

import re
import time
from dataclasses import dataclass

from ssl_core.errors import BadInput

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Cadence:
    """Every so many steps, or every so many seconds."""

    steps: int = 0
    seconds: float = 0

    @classmethod
    def of(cls, said: str, option: str) -> "Cadence":
        """From "200" (steps), "90s", "10m" or "1h". Raises BadInput, naming `option`."""
        found = re.fullmatch(r"(\d+)([smh]?)", said.strip())
        if not found or not int(found[1]):
            raise BadInput(f"{option} {said!r}: expected a number of steps such as 200, or a time such as 90s or 10m")
        number, unit = int(found[1]), found[2]
        return cls(seconds=number * UNITS[unit]) if unit else cls(steps=number)

    @classmethod
    def time(cls, said: str, option: str) -> float:
        """The seconds of "90s", "10m" or "1h". Raises BadInput, naming `option`."""
        found = cls.of(said, option)
        if found.steps:
            raise BadInput(f"{option} {said!r}: expected a time such as 90s or 10m")
        return found.seconds


class Clock:
    """Says at which steps a Cadence is due, from now on."""

    def __init__(self, cadence: Cadence):
        self.cadence, self.last = cadence, time.monotonic()

    def due(self, step: int) -> bool:
        if self.cadence.steps:
            return step % self.cadence.steps == 0
        if time.monotonic() - self.last < self.cadence.seconds:
            return False
        self.last = time.monotonic()
        return True
