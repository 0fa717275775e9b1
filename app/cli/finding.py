"""Result of one check of `python -m app doctor`."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check, with a remedy if it did not pass."""

    level: Level
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what}" + (f"; {self.remedy}" if self.remedy else "")
