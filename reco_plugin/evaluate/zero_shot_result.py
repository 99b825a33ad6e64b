"""What zero-shot classification found: numbers as data, as JSON and as plain text tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .generalised import HEADER, Generalised, row
from .prompts import Prompts
from .reasons import Reason, lines_of
from .table import table
from .variants import Variant, variants_table


@dataclass(frozen=True)
class Part:
    """Images of some classes, classified among those classes only.

    Attributes:
        images: how many.
        classes: how many.
        variants: frozen first.
        reasons: why refined prompts gained little.
    """

    images: int
    classes: int
    variants: tuple[Variant, ...]
    reasons: tuple[Reason, ...] = ()

    def __getitem__(self, refined: str) -> Variant:
        return next(variant for variant in self.variants if variant.refined == refined)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        return vars(self) | _lines(self.variants, self.reasons)


@dataclass(frozen=True)
class ZeroShotResult:
    """Frozen against refined on one labelled set.

    Attributes:
        name: of the set.
        images: N.
        classes: C.
        options: of the refinement, as far as they were given.
        variants: all images among all classes; frozen first.
        seen: the seen classes among themselves; None where the set does not say which are, or has no image of one.
        unseen: the unseen classes among themselves.
        generalised: ``variants`` once more, seen and unseen classes apart; empty where one of the two is missing.
        prompts: what the class names were put into; None where the set holds prompt vectors.
        reasons: why a side of ``variants`` gained little.
    """

    name: str
    images: int
    classes: int
    options: dict[str, Any]
    variants: tuple[Variant, ...]
    seen: Part | None = None
    unseen: Part | None = None
    generalised: tuple[Generalised, ...] = ()
    prompts: Prompts | None = None
    reasons: tuple[Reason, ...] = ()

    def __getitem__(self, refined: str) -> Variant:
        return next(variant for variant in self.variants if variant.refined == refined)

    @property
    def parts(self) -> dict[str, Part]:
        """``"unseen"`` and ``"seen"``, as far as there are any."""
        return {name: part for name, part in (("unseen", self.unseen), ("seen", self.seen)) if part is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1. What is not there is left out."""
        whole = {"task": "zero-shot", "name": self.name, "images": self.images, "classes": self.classes}
        prompts = {} if self.prompts is None else {"prompts": self.prompts.to_dict()}
        lines = {"options": self.options} | _lines(self.variants, self.reasons)
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        apart = {"generalised": [line.to_dict() for line in self.generalised]} if self.generalised else {}
        return whole | prompts | lines | parts | apart

    def render(self) -> str:
        """Plain text tables, in per cent and points."""
        title = f"zero-shot, {self.name}: {self.images:,} images, {self.classes:,} classes"
        prompts = "" if self.prompts is None else f"\nprompts: {self.prompts}"
        blocks = [f"{title}\n{variants_table(self.variants)}{prompts}{lines_of(self.reasons)}"]
        if self.generalised:
            blocks.append(f"the same, seen and unseen classes apart\n{table(HEADER, list(map(row, self.generalised)))}")
        for name, part in self.parts.items():
            counted = f"{part.images:,} images, {part.classes:,} classes"
            blocks.append(
                f"{name} classes among themselves: {counted}\n{variants_table(part.variants)}{lines_of(part.reasons)}"
            )
        return "\n\n".join(blocks)


def _lines(variants: Sequence[Variant], reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "variants": [variant.to_dict() for variant in variants],
        "reasons": [reason.to_dict() for reason in reasons],
    }
