"""What the entity task found: numbers as data, as JSON and as plain text tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .generalised import HEADER, Generalised, row
from .prompts import Prompts
from .reasons import Reason, lines_of
from .table import table
from .variants import Variant, variants_table


@dataclass(frozen=True)
class EntityResult:
    """Frozen against refined on one entity set; every query is compared with all entities.

    Attributes:
        name: of the set.
        queries: N.
        entities: C.
        options: of the refinement, as far as they were given.
        variants: all queries; frozen first.
        generalised: top-1 of seen and of unseen entities, and the harmonic mean; empty where the set does not say
            which queries are of unseen entities, or all are of one kind.
        generalised5: the same for top-5.
        prompts: what the names were put into; None where the set holds their vectors.
        reasons: why a side gained little.
    """

    name: str
    queries: int
    entities: int
    options: dict[str, Any]
    variants: tuple[Variant, ...]
    generalised: tuple[Generalised, ...] = ()
    generalised5: tuple[Generalised, ...] = ()
    prompts: Prompts | None = None
    reasons: tuple[Reason, ...] = ()

    def __getitem__(self, refined: str) -> Variant:
        return next(variant for variant in self.variants if variant.refined == refined)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1. What is not there is left out."""
        split = {"top1": self.generalised, "top5": self.generalised5}
        apart = {name: [line.to_dict() for line in lines] for name, lines in split.items() if lines}
        return {
            "task": "entities",
            "name": self.name,
            "queries": self.queries,
            "entities": self.entities,
            **({} if self.prompts is None else {"prompts": self.prompts.to_dict()}),
            "options": self.options,
            "variants": [variant.to_dict() for variant in self.variants],
            "reasons": [reason.to_dict() for reason in self.reasons],
            **({"generalised": apart} if apart else {}),
        }

    def render(self) -> str:
        """Plain text tables, in per cent and points."""
        blocks = [
            f"entities, {self.name}: {self.queries:,} queries, {self.entities:,} entities\n"
            f"{variants_table(self.variants)}"
            + ("" if self.prompts is None else f"\nprompts: {self.prompts}")
            + lines_of(self.reasons)
        ]
        for k, lines in ((1, self.generalised), (5, self.generalised5)):
            if lines:
                blocks.append(f"top-{k}, seen and unseen entities apart\n{table(HEADER, list(map(row, lines)))}")
        return "\n\n".join(blocks)
