"""Which vectors are refined: query or document, text or image, and the three ways to say so.

A caller says it by a field, by the model's alias, or by a prefix of the URL, since no single one of these reaches every
search engine:

1. ``refine`` in the request, true or false, is final.
2. The prefix ``/plain`` or ``/refined``; without one, the alias. *plain* means plain.
3. *refined* and *query* mean: as the sides below say, for the role that was given. Where none was, the prefix and the
   alias *query* take a query; an alias that is *refined* takes no guess, and the vector is plain: clients that send no
   role name the same model for documents, whose index would then be refined as queries, and find less than plain CLIP.
4. With neither, a role that was given counts in the same way; without one, the vector is plain.

The defaults of the sides: queries as the model's policy has it (refined), documents plain. A query is compared with
vectors that stay where they are, so it may move; documents compete with one another, and moving some of them costs the
others up to 60 points (docs/gate.md). They also sit in an index that nobody wants to make again. Where documents are
refined all the same, those of one request are judged as one set, so send a whole set of candidates at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..types import InputType, Modality
from .failures import Failure, Refused

Manner: TypeAlias = Literal["plain", "refined", "query"]
PREFIXES: dict[str, Literal["plain", "refined"]] = {"/plain": "plain", "/refined": "refined"}
"""First segment of the path -> what it says; stripped before routing."""


@dataclass(frozen=True)
class SidePolicy:
    """Whether each side is refined when the request does not say."""

    query_text: bool
    query_image: bool
    document_text: bool = False
    document_image: bool = False

    def refines(self, side: InputType, modality: Modality) -> bool:
        """Look one side up.

        >>> SidePolicy(True, True).refines("document", "image")
        False
        """
        if side == "query":
            return self.query_text if modality == "text" else self.query_image
        return self.document_text if modality == "text" else self.document_image


@dataclass(frozen=True)
class Asked:
    """What a request said about refinement, in all ways there are; None where it said nothing."""

    refine: bool | None = None  # the field of that name
    prefix: Manner | None = None  # of the URL
    alias: Manner | None = None  # what the model's alias means
    side: InputType | None = None  # query or document

    @property
    def role(self) -> InputType:
        """The side, a query when none was given."""
        return self.side or "query"

    @property
    def lacks_role(self) -> bool:
        """Whether the vectors are plain only because nobody said which side they are."""
        return self.refine is None and self.prefix is None and self.alias == "refined" and self.side is None

    def refines(self, modality: Modality, policy: SidePolicy) -> bool:
        """Decide for items of one modality, by the rules above.

        >>> Asked(alias="refined", side="document").refines("text", SidePolicy(True, True))
        False
        >>> Asked(alias="refined").refines("text", SidePolicy(True, True))
        False
        >>> Asked(alias="query").refines("text", SidePolicy(True, True))
        True
        """
        if self.refine is not None:
            return self.refine
        manner = self.prefix or self.alias
        if manner == "plain" or (manner is None and self.side is None) or self.lacks_role:
            return False
        return policy.refines(self.role, modality)


def manner_of(model: str | None, aliases: Mapping[str, Manner]) -> Manner | None:
    """What a model's alias means; None when none was named.

    Raises:
        Refused: 404, an alias that is unknown.
    """
    if model is None:
        return None
    try:
        return aliases[model]
    except KeyError:
        known = ", ".join(f"{name} ({manner})" for name, manner in aliases.items())
        raise Refused(
            Failure(404, "model_not_found", f"there is no model {model!r:.80} here, only: {known}", "model")
        ) from None
