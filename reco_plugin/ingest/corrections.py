"""Corrections of captions, which `reco clean` writes and a source is read with: ``id,old,new,decision``."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from ..errors import DataError
from ..files import whole_file
from ..sources.location import describe_missing_file
from ..sources.rows import Rejected, Rows, SourcePart
from ..sources.tables import TableFile
from ..types import Pair
from ..values import CONFIRMED, did_you_mean

CaptionDecision: TypeAlias = Literal["replace", "right", "leave out"]
COLUMNS = ("id", "old", "new", "decision")


@dataclass(frozen=True)
class Correction:
    """A decision about the pair that had the caption ``old``; ``new`` replaces it."""

    old: str
    new: str
    decision: CaptionDecision

    def of(self, pair: Pair) -> Pair | None:
        """The pair as it shall be; None: it is left out. A caption that the owner changed since stays."""
        if self.confirms(pair.text):
            return replace(pair, payload={**pair.payload, CONFIRMED: True})
        if pair.text != self.old:
            return pair
        if self.decision == "leave out":
            return None
        return replace(pair, text=self.new, payload={**pair.payload, "caption": self.new, CONFIRMED: True})

    def confirms(self, text: object) -> bool:
        """Whether a caption was found right, or is the one that was chosen."""
        return text == (self.new if self.decision == "replace" else self.old) and self.decision != "leave out"


@dataclass(frozen=True)
class _CorrectedPart:
    """A part of a source, with corrections; it can be pickled, like the part."""

    part: SourcePart
    corrections: Mapping[str, Correction]

    @property
    def name(self) -> str:
        """Name of the part."""
        return self.part.name

    def read(self) -> Iterator[Pair | Rejected]:
        """Rows in order."""
        for row in self.part.read():
            found = self.corrections.get(row.id) if isinstance(row, Pair) else None
            if found is None or not isinstance(row, Pair):
                yield row
            elif (pair := found.of(row)) is not None:
                yield pair


def read_corrections(path: Path) -> dict[str, Correction]:
    """Read corrections by id; the last one of an id counts.

    Raises:
        DataError: the file is missing, lacks a column or has an unknown decision; the message names line and column.
    """
    if not path.is_file():
        raise DataError(f"corrections: {describe_missing_file(path)}")
    found = dict[str, Correction]()
    for row in TableFile(path, needed=("id", "old", "decision")).good_rows():
        decision, new = row.values["decision"], str(row.values.get("new", "")).strip()
        if decision not in get_args(CaptionDecision):
            raise row.error(
                "decision", f"{decision!r} is no decision; {did_you_mean(decision, get_args(CaptionDecision))}"
            )
        if decision == "replace" and not new:
            raise row.error("new", "is empty, and the decision is 'replace': give the caption, or decide 'leave out'")
        found[str(row.values["id"])] = Correction(str(row.values["old"]), new, cast(CaptionDecision, decision))
    return found


def write_corrections(path: Path, corrections: Mapping[str, Correction]) -> None:
    """Write corrections by id, as the page saves them.

    Raises:
        DataError: the file cannot be written.
    """
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows((id_, one.old, one.new, one.decision) for id_, one in corrections.items())


def correct(rows: Rows, path: Path) -> tuple[Rows, list[str]]:
    """A source with the corrections of a file, and what becomes of them, for people; reads the source once.

    Raises:
        DataError: see :func:`read_corrections`; or the source has vectors in place of captions.
    """
    corrections = read_corrections(path)
    counts, changed = Counter[str](), list[str]()
    for row in (row for part in rows.parts for row in part.read()):
        if isinstance(row, Rejected) or (found := corrections.get(row.id)) is None:
            continue
        if not isinstance(row.text, str):
            raise DataError(f"{rows.name} brings the caption of {row.id!r} as a vector, which {path} cannot correct")
        if row.text == found.old:
            counts[found.decision] += 1
        elif found.confirms(row.text):
            counts["taken over"] += 1
        else:
            changed.append(row.id)
    made = (
        ("replace", "replaced"),
        ("leave out", "left out"),
        ("right", "right"),
        ("taken over", "already in the source"),
    )
    notes = [
        f"{path}: " + (", ".join(f"{counts[key]:,} {word}" for key, word in made if counts[key]) or "nothing to do")
    ]
    if changed:
        shown = ", ".join(map(repr, changed[:5])) + (" and others" if len(changed) > 5 else "")
        notes.append(
            f"{path}: the source changed {len(changed):,} of these captions since, so the source counts: {shown}"
        )
    if gone := len(corrections) - counts.total() - len(changed):
        notes.append(f"{path}: the source has no pair for {gone:,} of the ids")
    return replace(rows, parts=tuple(_CorrectedPart(part, corrections) for part in rows.parts)), notes
