"""What people marked on the page, blind: which of two rankings is better; one vote a query, with a sign test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..errors import DataError
from .statistics import sign_test

Better: TypeAlias = Literal["refined", "plain", "same"]
SURE = 0.05
"""Chance of a result as uneven, below which marks decide."""


@dataclass(frozen=True)
class Marks:
    """Queries by what most people marked; a query with as many marks for either side is the same."""

    by_query: Mapping[str, Better]
    people: int = 1

    def count(self, better: Better) -> int:
        """How many queries are better so."""
        return sum(one == better for one in self.by_query.values())

    @property
    def p(self) -> float:
        """Chance of a result at least as uneven if neither were better: the two-sided sign test without ties.

        >>> round(Marks({str(n): "plain" if n else "refined" for n in range(10)}).p, 4)
        0.0215
        """
        return sign_test(self.count("refined"), self.count("plain"))

    def __str__(self) -> str:
        who = "one person" if self.people == 1 else f"{self.people} people"
        return (
            f"marked by {who}, blind: refined is better on {self.count('refined'):,} queries, plain on "
            f"{self.count('plain'):,}, {self.count('same'):,} are the same (sign test, p = {self.p:.2g})"
        )


def read_marks(paths: Sequence[Path], key: str) -> Marks:
    """Read files that the page made. A person's mark of a query counts once: that of the last file.

    Args:
        paths: of the files.
        key: of the page that this comparison makes.

    Raises:
        DataError: a file is missing, is not of the page, or is of a page with other queries, results or index.
    """
    marked = dict[tuple[str, str], Better]()
    for path in paths:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            person, of, marks = (
                str(told["person"]),
                told["key"],
                [(str(m["query"]), m["better"]) for m in told["marks"]],
            )
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is no file of marks: save one on the page of `reco compare`") from None
        if of != key:
            raise DataError(
                f"{path} has the key {of!r:.40}, and this comparison has {key!r}: the marks are of another index, "
                "memory or queries, or results have changed since. Mark the page of this comparison"
            )
        for query, better in marks:
            if better not in get_args(Better):
                raise DataError(f"{path}: a mark is {better!r:.60}, expected one of {', '.join(get_args(Better))}")
            marked[person, query] = better
    votes: dict[str, Counter[str]] = {}
    for (_, query), better in marked.items():
        votes.setdefault(query, Counter())[better] += 1
    by_query: dict[str, Better] = {}
    for query, counts in votes.items():
        ahead = counts["refined"] - counts["plain"]
        by_query[query] = "refined" if ahead > 0 else "plain" if ahead < 0 else "same"
    return Marks(by_query, len({person for person, _ in marked}))
