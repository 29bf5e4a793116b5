"""Defines how often something is done, in steps or in time, as a person writes it."""

import re
import time
from dataclasses import dataclass

from ssl_core.errors import UserError

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """Means every so many steps, or every so many seconds; the other number is 0."""

    steps: int = 0
    seconds: float = 0

    @classmethod
    def parse(cls, text: str, option: str) -> "Interval":
        """Reads "200" (steps), "90s", "10m" or "1h".

        Args:
            text: What a person wrote.
            option: The option that an error message names.

        Raises:
            UserError: If the text is none of these.
        """
        found = re.fullmatch(r"(\d+)([smh]?)", text.strip())
        if not found or not int(found[1]):
            raise UserError(f"{option} {text!r}: expected a number of steps such as 200, or a time such as 90s or 10m")
        number, unit = int(found[1]), found[2]
        return cls(seconds=number * UNITS[unit]) if unit else cls(steps=number)

    @classmethod
    def parse_seconds(cls, text: str, option: str) -> float:
        """Reads "90s", "10m" or "1h" and returns the seconds.

        Args:
            text: What a person wrote.
            option: The option that an error message names.

        Raises:
            UserError: If the text is none of these.
        """
        found = cls.parse(text, option)
        if found.steps:
            raise UserError(f"{option} {text!r}: expected a time such as 90s or 10m")
        return found.seconds


class IntervalTimer:
    """Says at which steps an interval is due, counted from now on."""

    def __init__(self, interval: Interval):
        self.interval, self.last = interval, time.monotonic()

    def due(self, step: int) -> bool:
        """Returns whether it is time at this step; a time interval then begins anew."""
        if self.interval.steps:
            return step % self.interval.steps == 0
        if time.monotonic() - self.last < self.interval.seconds:
            return False
        self.last = time.monotonic()
        return True
