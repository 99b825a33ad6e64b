"""Which vectors are refined: query or document, text or image, and the three ways to say so.

A caller uses a field, the model's alias, or a prefix of the URL, since not every search engine can send all of them:

1. ``refine`` in the request, true or false, is final.
2. The prefix ``/plain`` or ``/refined``; without one, the alias. *plain* means plain.
3. *refined* and *query* follow the sides below, for the role of the request. Without a role, the prefix and the alias
   *query* assume a query; with the alias *refined* the vector is plain: clients that send no role use the same model
   for documents, and an index of documents refined as queries finds less than plain CLIP.
4. With neither, a role counts in the same way; without one, the vector is plain.

Defaults of the sides: queries follow the model's policy (refined), documents are plain. A query is compared with
vectors that do not change, so it may move; documents compete with one another, and moving some of them costs the others
up to 60 points (docs/gate.md). Refining them would also mean building the index again. Documents of one request are
refined as one set, so send all candidates at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from ..types import InputType, Modality, Target
from .failures import Failure, Refused

Manner: TypeAlias = Literal["plain", "refined", "query"]
PREFIXES: dict[str, Literal["plain", "refined"]] = {"/plain": "plain", "/refined": "refined"}
"""First segment of the path -> its meaning; stripped before routing."""


@dataclass(frozen=True)
class SidePolicy:
    """Whether each side is refined unless a request says otherwise."""

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
    """What a request says about refinement, in all three ways; None where it says nothing."""

    refine: bool | None = None  # the field of that name
    prefix: Manner | None = None  # of the URL
    alias: Manner | None = None  # meaning of the model's alias
    side: InputType | None = None  # query or document

    @property
    def role(self) -> InputType:
        """The side, a query when none was given."""
        return self.side or "query"

    @property
    def lacks_role(self) -> bool:
        """Whether the vectors are plain only because the request gives no side."""
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


def split_target(model: str | None) -> tuple[str | None, Target | None]:
    """A model's alias, and the target that its name may end with, for engines that can send nothing else.

    >>> split_target("clip-reco@text"), split_target("clip-reco")
    (('clip-reco', 'text'), ('clip-reco', None))
    """
    name, _, target = (model or "").partition("@")
    known = next((word for word in get_args(Target) if word == target), None)
    return (model, None) if known is None else (name, known)


def manner_of(model: str | None, aliases: Mapping[str, Manner]) -> Manner | None:
    """The meaning of a model's alias; None without one.

    Raises:
        Refused: 404, an unknown alias.
    """
    if model is None:
        return None
    if model not in aliases:
        known = ", ".join(f"{name} ({manner})" for name, manner in aliases.items())
        message = f"there is no model {model!r:.80} here, only: {known}"
        raise Refused(Failure(404, "model_not_found", message, "model"))
    return aliases[model]
