"""Results of the tasks of ``reco eval``: numbers as data, as JSON and as plain text tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ..measure.statistics import Interval, points
from ..values import counted
from .encoding import Prompts
from .measure import Generalised, Measured, Variant
from .ranking import RECALL_AT
from .reasons import Reason, line_of, lines_of

PerQuery: TypeAlias = Mapping[str, Sequence[Any]]
"""Columns of N queries: ``name``, and for each line the rank of its best true result, from 1."""


@dataclass(frozen=True, kw_only=True)
class _Classified:
    """A classification: its lines, frozen first, and why a refined side gained little."""

    variants: tuple[Variant, ...]
    reasons: tuple[Reason, ...] = ()
    own_pictures: int = 0  # images that the memory holds under other ids
    ranks: PerQuery | None = None  # the rank of the true class of each image

    def __getitem__(self, refined: str) -> Variant:
        return next(variant for variant in self.variants if variant.refined == refined)

    def _lines(self) -> dict[str, Any]:
        variants = [variant.to_dict() for variant in self.variants]
        lines: dict[str, Any] = {"variants": variants, "reasons": [reason.to_dict() for reason in self.reasons]}
        lines |= {"own_pictures": self.own_pictures} if self.ranks is not None else {}
        return lines | ({"ranks": self.ranks} if self.ranks is not None else {})

    def _table(self, prompts: Prompts | None = None) -> str:
        rows = [
            [v.refined, percent(v.top1.mean), percent(v.top5), "" if v.refined == "frozen" else points(v.gain)]
            for v in self.variants
        ]
        shown = table(["refined", "top-1 %", "top-5 %", "gain in top-1, 95 % interval"], rows)
        said = "" if prompts is None else f"\nprompts: {prompts}"
        return shown + said + lines_of(self.reasons) + line_of(self.own_pictures, _count(self.ranks))


@dataclass(frozen=True, kw_only=True)
class SomeClasses(_Classified):
    """Images of some classes, classified among those classes only."""

    images: int  # their number
    classes: int  # their number

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1."""
        return {"images": self.images, "classes": self.classes} | self._lines()


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult(SomeClasses):
    """Frozen against refined on one labelled set: all images among all classes."""

    name: str  # of the set
    options: dict[str, Any]  # given options of the refinement
    seen: SomeClasses | None = None  # among themselves; None where the set does not say which are, or has no image
    unseen: SomeClasses | None = None  # the unseen classes among themselves
    generalised: tuple[Generalised, ...] = ()  # seen and unseen classes apart; empty where one of the two is missing
    prompts: Prompts | None = None  # of the class names; None where the set holds prompt vectors

    @property
    def parts(self) -> dict[str, SomeClasses]:
        """``"unseen"`` and ``"seen"``, where present."""
        return {name: part for name, part in (("unseen", self.unseen), ("seen", self.seen)) if part is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1. Missing parts are left out."""
        whole = {"task": "zero-shot", "name": self.name, "images": self.images, "classes": self.classes}
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        apart = {"generalised": [line.to_dict() for line in self.generalised]} if self.generalised else {}
        return whole | _said(self.prompts) | {"options": self.options} | self._lines() | parts | apart

    def render(self) -> str:
        """Plain text tables, in per cent and points."""
        title = f"zero-shot, {self.name}: {counted(self.images, 'image')}, {counted(self.classes, 'class', 'classes')}"
        blocks = [f"{title}\n{self._table(self.prompts)}"]
        if self.generalised:
            blocks.append(f"the same, seen and unseen classes apart\n{_apart(self.generalised)}")
        for name, part in self.parts.items():
            held = f"{counted(part.images, 'image')}, {counted(part.classes, 'class', 'classes')}"
            blocks.append(f"{name} classes among themselves: {held}\n{part._table()}")
        return "\n\n".join(blocks)


@dataclass(frozen=True)
class RetrievalVariant:
    """One line of the result of a retrieval."""

    direction: str  # ``"text->image"``, ``"image->text"``, ``"text->text"`` or ``"image->image"``
    refined: str  # ``frozen``, ``query`` (the index stays as it is), ``index``, ``both``, or ``exact``: both, by scores
    recall: dict[int, float]  # k -> share of queries with a true result among the first k
    gain: Interval  # recall at 1 minus frozen, on the same queries, with its 95 % interval
    ndcg10: float  # nDCG@10 over all true results, mean of the queries

    @property
    def side(self) -> str:
        """The refined modality: image, text, both, or frozen."""
        query, _, index = self.direction.partition("->")
        return {"query": query, "index": index, "exact": "both"}.get(self.refined, self.refined)


@dataclass(frozen=True)
class RetrievalResult:
    """Frozen against refined on one retrieval set."""

    name: str  # of the set
    images: int  # N
    texts: int  # M
    options: dict[str, Any]  # given options of the refinement
    variants: tuple[RetrievalVariant, ...]  # all directions, frozen first in each
    reasons: tuple[Reason, ...] = ()  # why a line gained little
    repeated: int = 0  # number of texts that describe another image too; they tie, which counts as wrong
    own_pictures: int = 0  # images that the memory holds under other ids
    ranks: Mapping[str, PerQuery] = field(default_factory=dict)  # by direction
    alike: Mapping[str, int] = field(default_factory=dict)  # direction -> queries with another right one of their kind

    def __getitem__(self, key: tuple[str, str]) -> RetrievalVariant:
        return next(variant for variant in self.variants if (variant.direction, variant.refined) == key)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1."""
        variants = [
            asdict(v) | {"recall": {f"R@{k}": share for k, share in v.recall.items()}, "gain": v.gain._asdict()}
            for v in self.variants
        ]
        reasons = [reason.to_dict() for reason in self.reasons]
        return {"task": "retrieval"} | asdict(self) | {"variants": variants, "reasons": reasons}

    def render(self) -> str:
        """A plain text table, in per cent and points."""
        title = f"retrieval, {self.name}: {counted(self.images, 'image')}, {counted(self.texts, 'text')}"
        rows = []
        for v in self.variants:
            refined = v.refined if v.side == v.refined else f"{v.refined} ({v.side})"
            gained = "" if v.refined == "frozen" else points(v.gain)
            rows.append([f"{v.direction:<12} {refined}", *map(percent, v.recall.values()), percent(v.ndcg10), gained])
        header = ["direction    refined", *(f"R@{k} %" for k in RECALL_AT), "nDCG@10 %", "gain in R@1, 95 % interval"]
        tied = (
            f"\nties: {self.repeated:,} of {self.texts:,} texts stand on several images; these tie, and "
            "a tie counts as wrong"
        )
        tied = f"{tied if self.repeated else ''}{''.join(self._untold())}"
        below = f"{tied}{lines_of(self.reasons)}{line_of(self.own_pictures, self.images)}"
        return f"{title}\n{table(header, rows)}{below}"

    def _untold(self) -> Iterator[str]:
        """The directions within one modality of which this set says nothing."""
        measured = {variant.direction for variant in self.variants}
        for direction, count in self.alike.items():
            if direction not in measured:
                kind = direction.partition("->")[0]
                yield f"\n{direction}: nothing can be said, since {count} {kind}s show the same as another"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, all others to the right.

    >>> print(table(["variant", "top-1"], [["frozen", "62.3"], ["both", "63.0"]]))
    variant  top-1
    -------  -----
    frozen    62.3
    both      63.0
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])
        for first, *others in lines
    )


def percent(share: float) -> str:
    """Format a share in per cent, as in ``62.3``."""
    return f"{100 * share:.1f}"


def per_query(names: Sequence[str], found: Mapping[str, Measured]) -> PerQuery:
    """The columns of N queries: their names, and what was measured of each line."""
    return {"name": list(names), **{refined: (one.ranks[0] + 1).tolist() for refined, one in found.items()}}


def _count(ranks: PerQuery | None) -> int:
    return 0 if ranks is None else len(ranks["name"])


def _said(prompts: Prompts | None) -> dict[str, Any]:
    return {} if prompts is None else {"prompts": prompts.to_dict()}


def _apart(lines: Sequence[Generalised]) -> str:
    """Render a table of seen and unseen classes."""
    rows = []
    for line in lines:
        shares = [percent(line.seen.mean), percent(line.unseen.mean), percent(line.harmonic.mean)]
        rows.append([line.refined, *shares, "" if line.refined == "frozen" else points(line.gain)])
    return table(["refined", "seen %", "unseen %", "harmonic mean %", "gain in harmonic mean, 95 % interval"], rows)
