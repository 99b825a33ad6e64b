"""Types that all modules share. Axis letters: B batch, N rows, K neighbours, D dimensions, L tokens."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from .errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from .fusion.explain import Why
    from .memory.lexical import QueryWords

Modality: TypeAlias = Literal["image", "text"]
Role: TypeAlias = Literal["query", "candidate"]
"""A query is compared with vectors that do not change; candidates compete with one another."""
InputType: TypeAlias = Literal["query", "document"]
"""Search engines' names: a query, and a document of an index."""
ROLE_OF: Mapping[InputType, Role] = {"query": "query", "document": "candidate"}
"""Refined documents are the candidates of one set."""
FuserName: TypeAlias = Literal["reco", "paper"]
"""reco: the closed form. paper: the attention layer of the model folder."""
Target: TypeAlias = Literal["image", "text", "both"]
"""What refined vectors are compared with: images, texts, or means or a mixture of both."""
UNMOVED = 1e-6
"""Cosine distance up to which a vector counts as where it was."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)
Degraded: TypeAlias = Literal[
    "memory_error",
    "memory_timeout",
    "memory_circuit_open",
    "fusion_error",
    "fusion_timeout",
    "encoder_changed",
]
"""Why vectors are frozen although refinement was on; ``circuit_open``: not called, after too many failures;
``encoder_changed``: an API that encodes has another model than the memory."""
Away: TypeAlias = Literal["service_error", "service_timeout", "service_circuit_open"]
"""Likewise, where a client answers in place of the service."""

Vectors: TypeAlias = npt.NDArray[np.float32]
"""(B, D) unless stated otherwise; unit-norm."""
Payload: TypeAlias = Mapping[str, Any]
ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | Image"
"""A path, the bytes of an encoded image, or a PIL image."""
Filter: TypeAlias = Mapping[str, Any]
"""Conditions on the payload that must all hold: ``{"shop": "de", "year": {"gte": 2020}, "tag": ["a", "b"]}``.

A plain value must be equal, a list must contain the value, a mapping gives bounds (gt, gte, lt, lte).
"""


def caption_of(payload: Payload) -> str | None:
    """The text of a stored pair, if it was stored."""
    caption = payload.get("caption")
    return caption if isinstance(caption, str) else None


def other(modality: Modality) -> Modality:
    """The other modality.

    >>> other("image")
    'text'
    """
    return "text" if modality == "image" else "image"


class _ResultRepr(Repr):
    """Values in few words: an array is its type and shape."""

    def repr_ndarray(self, array: npt.NDArray[Any], _: int) -> str:
        return f"<{array.dtype} {array.shape}>"


_TOLD = _ResultRepr()
_TOLD.maxstring = _TOLD.maxother = 200


class ToldShort:
    """Base of results, which notebooks print: their repr has the shapes of arrays, and a few items of what is long."""

    def __repr__(self) -> str:
        given = ((each, getattr(self, each.name)) for each in fields(cast(Any, self)))
        told = (f"{each.name}={_TOLD.repr(value)}" for each, value in given if value is not each.default)
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Pair(ToldShort):
    """An image-text pair to store; each side is raw or already a CLIP vector (D,).

    Attributes:
        id: any text; the same id replaces the pair.
        image: path, bytes, PIL image or vector.
        text: caption or vector.
        payload: JSON-like values to filter by and to show; a raw text is stored with them, as ``caption``.
        where: its row of a file, for messages, as in ``catalogue.csv, line 17``.
    """

    id: str
    image: ImageInput | npt.NDArray[np.floating[Any]]
    text: str | npt.NDArray[np.floating[Any]]
    payload: Payload = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @property
    def stored_payload(self) -> Payload:
        """The payload with a raw text as ``caption``, to show a retrieved pair; an existing ``caption`` stays."""
        return {"caption": self.text} | dict(self.payload) if isinstance(self.text, str) else self.payload


@dataclass(frozen=True, repr=False)
class Records(ToldShort):
    """N encoded pairs, as columns.

    Attributes:
        ids: N ids.
        image: (N, D) float32, unit-norm.
        text: (N, D) float32, unit-norm.
        payloads: N payloads.
    """

    ids: Sequence[str]
    image: Vectors
    text: Vectors
    payloads: Sequence[Payload]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def join(cls, parts: Sequence[Records], dimension: int) -> Records:
        """Batches (N, D) as one; without any, no rows (0, D)."""
        empty = np.empty((0, dimension), np.float32)
        return cls(
            [id_ for part in parts for id_ in part.ids],
            np.concatenate([empty, *(part.image for part in parts)]),
            np.concatenate([empty, *(part.text for part in parts)]),
            [payload for part in parts for payload in part.payloads],
        )

    def take(self, chosen: npt.ArrayLike) -> Records:
        """Some rows, by number and in that order, or by mask (N,)."""
        numbers = np.asarray(chosen)
        rows = np.flatnonzero(numbers) if numbers.dtype == np.bool_ else numbers.astype(np.int64)
        ids, payloads = ([column[row] for row in rows.tolist()] for column in (self.ids, self.payloads))
        return Records(ids, self.image[rows], self.text[rows], payloads)

    def side(self, modality: Modality) -> Vectors:
        """The vectors of one modality, (N, D)."""
        return self.image if modality == "image" else self.text

    @property
    def cosine(self) -> npt.NDArray[np.float32]:
        """Of each pair's image and text, (N,)."""
        return np.asarray(np.einsum("nd,nd->n", self.image, self.text), np.float32)


@dataclass(frozen=True)
class Search:
    """A search of a memory, which checks it.

    Attributes:
        vectors: (B, D) unit-norm queries.
        by: modality of the memory that is compared with the queries.
        read: modality whose vectors are returned.
        k: neighbours per query; fewer if the memory holds fewer.
        exclude: B collections of ids that must not be found for that query.
        where: conditions on the payload.
        payloads: also read the payloads.
        ids: also read the users' ids; without, ids are the store's own, and a store that keeps users' ids in the
            payload reads no payload.
        checked: whether the caller has checked all of it, and it has neither exclusions nor conditions.
        words: of B queries, by which captions are found, too; None of one: by its vector alone.
        own: also read the vectors that are compared.
        within: what the caller may see: conditions that also hold for captions that are only looked at.
    """

    vectors: Vectors
    by: Modality
    read: Modality
    k: int
    exclude: Sequence[Collection[str]] | None = None
    where: Filter | None = None
    payloads: bool = False
    ids: bool = True
    checked: bool = False
    words: Sequence[QueryWords | None] | None = None
    own: bool = False
    within: Filter | None = None


@dataclass(frozen=True, repr=False)
class Neighbours(ToldShort):
    """What a search found for B queries, nearest first, padded to K columns.

    Attributes:
        ids: B lists of at most K ids.
        similarity: (B, K) float32 cosine between query and neighbour, larger is nearer; 0 where padded.
        vectors: (B, K, D) float32 vectors that were read (usually the other modality's); 0 where padded.
        found: (B, K) bool; False where padded.
        cosine: (B, K) float32 of each pair's own image and text; 0 where padded.
        payloads: B lists of payloads, or None if not requested.
        asked: (B, D) what was searched with: the query, or what captions with its words stand for; None: the queries.
        words: B texts, the part of a caption that has the query's words and stands in for it; empty where none does.
        word_ids: B lists, the ids of the pairs that were found by words and stand in for the query.
        own: (B, K, D) float32 vectors that were compared; 0 where padded, and (B, 0, D) if not requested.
        confirmed: (B, K) bool, whether a person confirmed the pair's caption; None: of none.
    """

    ids: list[list[str]]
    similarity: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    cosine: npt.NDArray[np.float32]
    payloads: list[list[Payload]] | None = None
    asked: Vectors | None = None
    words: Sequence[str] = ()
    word_ids: Sequence[Sequence[str]] = ()
    own: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    confirmed: npt.NDArray[np.bool_] | None = None

    @classmethod
    def join(cls, parts: Sequence[Neighbours]) -> Neighbours:
        """What several searches of one kind found."""
        return cls(
            ids=[ids for part in parts for ids in part.ids],
            similarity=np.concatenate([part.similarity for part in parts]),
            vectors=np.concatenate([part.vectors for part in parts]),
            found=np.concatenate([part.found for part in parts]),
            cosine=np.concatenate([part.cosine for part in parts]),
            payloads=[row for part in parts for row in part.payloads or []],
            asked=None if parts[0].asked is None else np.concatenate([part.asked for part in parts]),
            words=[text for part in parts for text in part.words],
            word_ids=[ids for part in parts for ids in part.word_ids],
            own=np.concatenate([part.own for part in parts]),
            confirmed=np.concatenate([part.is_confirmed for part in parts]),
        )

    @property
    def is_confirmed(self) -> npt.NDArray[np.bool_]:
        """``confirmed`` (B, K), also where it is None."""
        return np.zeros(self.found.shape, np.bool_) if self.confirmed is None else self.confirmed


@dataclass(frozen=True)
class Used:
    """A pair of the memory that a refinement used.

    Attributes:
        id: of the pair.
        similarity: cosine with the item, by the modality that was searched; larger is nearer.
        reliability: how far its caption is trusted, in [0, 1]; 1 without a gate.
        weight: its share in the fusion, in [0, 1]; all shares sum to at most 1.
        payload: as stored.
    """

    id: str
    similarity: float
    reliability: float
    weight: float
    payload: Payload

    @property
    def caption(self) -> str | None:
        """Its text, if the memory stores it."""
        return caption_of(self.payload)


@dataclass(frozen=True)
class Coverage:
    """What the memory knows of the vectors of one refinement.

    Attributes:
        asked: B.
        found: how many of them found any pair; 0 where the target is their own modality, for which nothing is searched.
        answered: share of the text candidates that the memory knows; None for queries and images, of which it cannot
            be told, and without a gate.
        needed: share that must be known, else all candidates stay plain; 0 if each moves independently.
        strength: mean length of what was added to a vector of length 1; None without a gate.
        covered: for each text candidate, whether the memory knows it; empty otherwise.
        plain: why nothing moves, for people; empty where something may.
    """

    asked: int
    found: int
    answered: float | None = None
    needed: float = 0.0
    strength: float | None = None
    covered: tuple[bool, ...] = ()
    plain: str = ""

    @property
    def held(self) -> bool:
        """Whether too few candidates are known, so that all stay frozen."""
        return self.answered is not None and self.answered < self.needed

    @classmethod
    def join(cls, parts: Sequence[Coverage]) -> Coverage:
        """Coverage of queries that were refined in several parts.

        >>> Coverage.join([Coverage(1, 1, strength=0.5), Coverage(3, 2, strength=0.25)])
        Coverage(asked=4, found=3, answered=None, needed=0.0, strength=0.3125, covered=(), plain='')
        """
        if len(parts) == 1:
            return parts[0]
        asked = sum(part.asked for part in parts)
        known = [part.strength * part.asked for part in parts if part.strength is not None]
        strength = sum(known) / asked if known else None
        covered = tuple(known for part in parts for known in part.covered)
        found = sum(part.found for part in parts)
        return replace(parts[0], asked=asked, found=found, strength=strength, covered=covered)


@dataclass(frozen=True, repr=False)
class Moves(ToldShort):
    """How B vectors of one modality move, as exact scores with the other modality's plain vectors need it.

    Attributes:
        modality: of the vectors.
        plain: (B, D) unit-norm.
        added: (B, D) what is added; 0 where a vector stays plain.
        constant: (B,) what is added to all scores of one of them.
        mean: (D,) of the memory's vectors of the other modality.
        covered: (B,) whether the memory knows it; of queries, all.
        kappa: nats per unit of cosine; 0 where nothing moves.
        clip: nats per unit of cosine of CLIP's own scores.
    """

    modality: Modality
    plain: Vectors
    added: Vectors
    constant: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    covered: npt.NDArray[np.bool_]
    kappa: float
    clip: float
    _ROWS = ("plain", "added", "constant", "covered")  # have a row for each vector

    def take(self, chosen: npt.NDArray[Any]) -> Moves:
        """Some rows, by number or by mask (B,)."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self._ROWS})

    @classmethod
    def join(cls, parts: Sequence[Moves]) -> Moves:
        """Several batches as one."""
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._ROWS}
        return replace(parts[0], **joined)


@dataclass(frozen=True, repr=False)
class Refinement(ToldShort):
    """Refined vectors, with an explanation on request.

    Attributes:
        vectors: (B, D) float32, unit-norm, in the space of the frozen encoder.
        frozen: (B, D) the vectors before refinement.
        neighbours: what was retrieved; None unless ``explain``.
        reliability: (B, K) in [0, 1]: how far each neighbour is trusted, see :class:`Used`; None unless
        ``explain``. weights: (B, K) share of each neighbour in the fusion, 0 where padded; None unless ``explain``.
        degraded: why the vectors are frozen although refinement was on; None if nothing failed.
        coverage: how many vectors the memory answered; None if it was not searched.
        retrieved: (B,) bool: whether a vector found any pair; without one, it stays frozen. None if the memory was not
            searched, or did not answer.
        moves: how each vector moved, for exact scores with vectors of the other modality; None without a gate.
        why: B reasons for how far each moved, None where it found nothing; None unless ``explain``, and without a gate.
        scale: (B, 2) of queries: a score of the refined vector times the first, plus the second, is on the scale of
            plain scores, see :meth:`plain_scores`; None for candidates, without a gate, and where nothing is refined.
        presence: (B,) of queries, from 0 to 1, larger where the memory more likely holds what is asked for. A
            probability for queries worded as its captions are, else a rank. None: see :attr:`why_no_presence`.
        presence_needed: below it, a query stays plain: the option ``presence``.
        no_presence: why there is none although the closed form was asked, for people.
        words: B texts, the part of a caption that has the words of the query and stands in for it; empty where it asked
            by itself. None where nothing was looked for by words.
        word_ids: B lists, the ids of these pairs, as for an application that pins them; None likewise.
    """

    vectors: Vectors
    frozen: Vectors
    neighbours: Neighbours | None = None
    reliability: npt.NDArray[np.float32] | None = None
    weights: npt.NDArray[np.float32] | None = None
    degraded: Degraded | None = None
    coverage: Coverage | None = None
    retrieved: npt.NDArray[np.bool_] | None = None
    moves: Moves | None = None
    why: Sequence[Why | None] | None = None
    scale: npt.NDArray[np.float32] | None = None
    presence: npt.NDArray[np.float32] | None = None
    presence_needed: float = 0.0
    no_presence: str = ""
    words: Sequence[str] | None = None
    word_ids: Sequence[Sequence[str]] | None = None

    @classmethod
    def join(cls, parts: Sequence[Refinement]) -> Refinement:
        """Blocks of one refinement below one another."""
        if len(parts) == 1:
            return parts[0]

        def rows(name: str) -> Any:
            known = [value for part in parts if (value := getattr(part, name)) is not None]
            if not known:
                return None
            return np.concatenate(known) if isinstance(known[0], np.ndarray) else [row for one in known for row in one]

        moving = [part.moves for part in parts if part.moves is not None]
        found = [part.neighbours for part in parts if part.neighbours is not None]
        return cls(
            rows("vectors"),
            rows("frozen"),
            Neighbours.join(found) if found else None,
            rows("reliability"),
            rows("weights"),
            coverage=Coverage.join([part.coverage for part in parts if part.coverage is not None]),
            retrieved=rows("retrieved"),
            moves=Moves.join(moving) if moving else None,
            why=rows("why"),
            scale=rows("scale"),
            presence=rows("presence"),
            presence_needed=parts[0].presence_needed,
            no_presence=parts[0].no_presence,
            words=rows("words"),
            word_ids=rows("word_ids"),
        )

    def plain_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Scores (B, ...) of the refined vectors on the scale of plain ones, for a cut-off that was set on those.

        Each query's scores keep the mean and the spread that its plain vector has over the memory's vectors; their
        order stays. Cosines or dot products alike.

        Raises:
            InputError: not one row of scores a query, or rows of different lengths.
        """
        return to_plain_scores(scores, self.scale)

    def refined_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The way back: what plain scores are for the refined vectors, as a cut-off that an engine is told.

        One number gives (B,), each query's own; (B, ...) gives (B, ...). Cosines or dot products alike; beyond ±1 no
        result, or each one, passes.

        Raises:
            InputError: as of :meth:`plain_scores`.
        """
        return to_refined_scores(scores, self.scale, len(self.vectors))

    @property
    def refined(self) -> npt.NDArray[np.bool_]:
        """(B,) whether a vector moved; one that was to be refined may stay, see :meth:`why_plain`."""
        return self.moved > UNMOVED

    def why_plain(self, row: int) -> str:
        """Why a vector that was to be refined stays plain, for people; empty where it moved, or was not to be."""
        if self.refined[row] or (self.coverage is None and self.degraded is None):
            return ""
        if self.degraded is not None or self.coverage is None:
            return str(self.degraded)
        if self.retrieved is not None and not self.retrieved[row]:
            return "no pair was found"
        if self.coverage.plain:
            return self.coverage.plain
        if self.coverage.held:
            return f"the memory knows less than {self.coverage.needed:.0%} of the candidates"
        if self.presence is None or self.presence[row] >= self.presence_needed:
            held = "it is unlike the memory's pairs, or the coverage is too low"
        else:
            held = f"its presence, {self.presence[row]:.2f}, is below {self.presence_needed:g}"
        return f"the gate leaves it where it is: {held}"

    @property
    def why_no_presence(self) -> str:
        """Why there is no presence, for people; empty where there is."""
        if self.presence is not None:
            return ""
        if self.degraded is not None:
            return str(self.degraded)
        if self.coverage is None:
            return "nothing was refined"
        return self.no_presence or "only queries for the other modality have one, by the fuser reco with its gate"

    @cached_property
    def moved(self) -> npt.NDArray[np.float32]:
        """(B,) cosine distance between frozen and refined; 0 means unchanged."""
        difference = self.vectors - self.frozen
        return np.asarray(0.5 * np.einsum("bd,bd->b", difference, difference), np.float32)  # of unit vectors: 1 - cos


def to_plain_scores(scores: npt.ArrayLike, scale: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """Scores (B, ...) by B factors and B numbers that are added (B, 2); as they are without."""
    given = _scores(scores, scale)
    if scale is None:
        return given
    factor, offset = (scale[:, side].reshape(-1, *([1] * (given.ndim - 1))) for side in (0, 1))
    return np.asarray(factor * given + offset, np.float32)


def _scores(scores: npt.ArrayLike, scale: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """Scores (B, ...), or one number, or of a single query (K,); else InputError, where numpy would repeat rows."""
    try:
        given = np.asarray(scores, np.float32)
    except (TypeError, ValueError):
        raise InputError(
            "scores must be numbers, as many for each query: fill up shorter rankings, as with NaN, or ask for one "
            "query at a time"
        ) from None
    if scale is not None and given.ndim and len(given) != len(scale) and (given.ndim > 1 or len(scale) > 1):
        check_rankings(given, len(scale))
    return given


def check_rankings(scores: Any, queries: int) -> None:
    """Refuse scores that are not one ranking a query.

    Raises:
        InputError: naming how many there are.
    """
    if not hasattr(scores, "__len__"):
        raise InputError(f"scores must be a list of rankings, one per query, got {scores!r:.60}")
    if (rankings := len(scores)) != queries:
        each = "ranking" if rankings == 1 else "rankings"
        raise InputError(f"scores has {rankings:,} {each} for {queries:,} queries: give one per query")


def to_refined_scores(
    scores: npt.ArrayLike, scale: npt.NDArray[np.float32] | None, rows: int
) -> npt.NDArray[np.float32]:
    """Plain scores, one number or (B, ...), as scores of B refined vectors: undoes :func:`to_plain_scores`."""
    given = _scores(scores, scale)
    if given.ndim == 0:
        given = np.full(rows, given, np.float32)
    if scale is None:
        return given
    factor, offset = (scale[:, side].reshape(-1, *([1] * (given.ndim - 1))) for side in (0, 1))
    return np.asarray((given - offset) / factor, np.float32)


def join_scales(said: Sequence[Any], moved: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Scales (B, 2) of what is said of each of B queries; one that stayed plain has plain scores.

    None where nothing is said of any, or of one that moved (B,).

    >>> join_scales([[2.0, 0.5], None], np.float32([0.1, 0.0])).tolist()
    [[2.0, 0.5], [1.0, 0.0]]
    """
    told = [one is not None for one in said]
    if not any(told) or not all(one or far <= UNMOVED for one, far in zip(told, moved.tolist(), strict=True)):
        return None
    return np.array([(1.0, 0.0) if one is None else one for one in said], np.float32)


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the encoder and preprocessing of vectors.

    Attributes:
        name: for people, as in ``ViT-B-32/laion2b_s34b_b79k``.
        digest: for machines: sha256 over encoder graphs, tokenizer and preprocessing; of an API, what was measured
            (:mod:`reco_plugin.fingerprint`).
        dimension: D.
    """

    name: str
    digest: str
    dimension: int

    def __str__(self) -> str:
        how = "measured" if self.digest.startswith("api-") else "sha256"
        return f"{self.name} ({self.dimension}-d, {how} {self.digest.removeprefix('api-')[:12]})"
