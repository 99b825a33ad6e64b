"""A sample of whole groups: the same ones each time, a larger sample holds a smaller one, and nothing is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.data.rows import Rejected, Rows, SourcePart
from reco_plugin.fit.catalogue import sample
from reco_plugin.types import Pair


@dataclass(frozen=True)
class Made:
    """A part of rows in memory, of 500 things with one to four pictures each."""

    name: str = "made"

    def read(self) -> Iterator[Pair | Rejected]:
        for thing in range(500):
            for picture in range(1 + thing % 4):
                if (thing, picture) == (7, 0):
                    yield Rejected("row 7", "is bad")
                else:
                    yield Pair(
                        f"{thing}-{picture}",
                        Path("never opened.png"),
                        f"thing {thing}",
                        {"caption": f"thing {thing}", "sku": f"s{thing}"},
                    )


ROWS = Rows("made", (Made(),), 1250)


def chosen(rows: Rows, most: int, group: str | None = None) -> list[Pair]:
    used = sample(rows, group, most)
    assert used is not None
    found = [row for part in rows.parts for row in part.read() if used.holds(row)]
    assert len(found) == used.rows <= most and used.of == 1250
    return [row for row in found if isinstance(row, Pair)]


@pytest.mark.parametrize("group", [None, "sku"])
def test_whole_groups_are_drawn(group: str | None) -> None:
    found = chosen(ROWS, 300, group)
    assert 250 < len(found) <= 300
    for thing, count in Counter(pair.text for pair in found).items():
        number = int(str(thing).split()[1])
        assert count == 1 + number % 4 - (number == 7), thing


def test_a_larger_sample_holds_a_smaller_one_whatever_the_order() -> None:
    @dataclass(frozen=True)
    class Backwards(Made):
        def read(self) -> Iterator[Pair | Rejected]:
            yield from reversed(list(super().read()))

    small, large = (
        {pair.id for pair in chosen(rows, most)} for rows, most in ((ROWS, 100), (Rows("b", (Backwards(),)), 400))
    )
    assert small < large


def test_a_catalogue_that_is_small_enough_is_not_read() -> None:
    @dataclass(frozen=True)
    class Unread(Made):
        def read(self) -> Iterator[Pair | Rejected]:
            raise AssertionError("it was read")

    part: SourcePart = Unread()
    assert sample(Rows("u", (part,), 1250), None, 1250) is None
    assert sample(Rows("u", (part,), 1250), None, 0) is None
    assert sample(Rows("m", (Made(),), None), None, 1250) is None, "where nobody knows, they are counted"


def test_groups_are_drawn_evenly() -> None:
    found = chosen(ROWS, 600)
    numbers = np.array(sorted({int(str(pair.text).split()[1]) for pair in found}))
    assert 200 < len(numbers) < 280 and abs(numbers.mean() - 250) < 30
