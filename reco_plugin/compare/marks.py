"""What a person marked on the page, blind: which of two rankings is better; counted, with a sign test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..errors import DataError
from ..measure.statistics import sign_test

Better: TypeAlias = Literal["refined", "plain", "same"]
SURE = 0.05
"""Chance of a result as uneven by luck, below which it is sure."""


@dataclass(frozen=True)
class Marks:
    """Queries by what was marked."""

    refined: int
    plain: int
    same: int
    people: int = 1

    @property
    def chance(self) -> float:
        """Of a result at least as uneven if neither were better: the two-sided sign test without ties.

        >>> round(Marks(9, 1, 5).chance, 4)
        0.0215
        """
        return sign_test(self.refined, self.plain)

    def __str__(self) -> str:
        who = "one person" if self.people == 1 else f"{self.people} people"
        sure = "which is hardly by chance" if self.chance < SURE else "which may be by chance"
        return (
            f"marked by {who}, blind: refined better {self.refined:,}, plain better {self.plain:,}, the same "
            f"{self.same:,}; {sure} (sign test, p = {self.chance:.3g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return {
            "refined": self.refined, "plain": self.plain, "same": self.same, "people": self.people,
            "chance": self.chance,
        }  # fmt: skip


def read_marks(paths: Sequence[Path]) -> Marks:
    """Read files that the page made, one a person.

    Raises:
        DataError: a file is missing, is not of the page, or is given twice, which would count a person twice.
    """
    places = [path.resolve() for path in paths]
    if again := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise DataError(f"{again} is given twice: each file counts as a person")
    counts: dict[str, int] = dict.fromkeys(get_args(Better), 0)
    for path in paths:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            marked = [one["better"] for one in said["marks"]]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path} is no file of marks: the page of `reco compare` makes one when all is marked"
            ) from None
        for better in marked:
            if better not in counts:
                raise DataError(f"{path}: a mark is {better!r:.60}, expected one of {', '.join(counts)}")
            counts[better] += 1
    return Marks(counts["refined"], counts["plain"], counts["same"], len(paths))
