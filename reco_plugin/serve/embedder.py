"""The synchronous core: an :class:`EmbedRequest` in, an :class:`Embedded` out, over one :class:`~reco_plugin.Reco`.

Every dialect translates JSON to the request, and the answer back. Item i of the request is row i of the answer; an item
that cannot be embedded fails the request, which names it.

Which vectors are refined:

1. ``refine`` in the request, true or false, is final.
2. The model's name: of the field, or of the path, for engines that can send nothing else (``/plain``, ``/refined``).
   *plain* means plain. *refined* and *query* refine queries. Without a role, *query* and the path assume a query; the
   name *refined* is refused: a client may send no role for documents, too (Weaviate's module for Jina does), and an
   index of documents refined as queries finds less than plain CLIP.
3. With neither, a role counts in the same way; without one, the vector is plain.

Documents are refined only where ``refine`` says so. A query is compared with vectors that do not change, so it may
move; documents compete with one another, and moving some of them costs the others up to 60 points (docs/method.md).
Documents of one request are refined as one set.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..encoders.local import EncoderInput
from ..errors import ImageError, InputError
from ..fusion.explain import Why
from ..fusion.refiner import used_pairs
from ..options import RefineOptions
from ..reco import Reco
from ..types import MODALITIES, ROLE_OF, Coverage, Degraded, InputType, Modality, Refinement, Target, Used, Vectors
from .executor import Pixels, leave_place, still_wanted, take_place
from .failures import Failure, Refused, failure_of, too_many_bytes, too_many_items
from .items import EMPTY, IMAGE_AS_TEXT, Item, image_bytes, is_bare_picture
from .service_settings import MOST_K, Manner, ServeSettings

FoundBy: TypeAlias = Literal["words", "neighbours"]
MOST_PAIRS = 50_000
"""That an explanation shows: items times k. Each takes a kilobyte of the answer."""
_FEW = 16
"""Items of a request that is no bulk."""
_MOST_CHARS = 50_000
"""Of a text that are read; the rest is cut, as what is beyond the context length."""
_CUT = 'let its end be cut: truncate "END" or true, truncation true (NVIDIA\'s clients send "NONE" by default)'


@dataclass(frozen=True)
class EmbedRequest:
    """A request to embed items."""

    items: Sequence[Item] = ()  # at least one
    names: Sequence[str] = ()  # of the items, for messages; else input[0], input[1], ...
    model: str | None = None  # alias; None if the dialect has none
    side: InputType | None = None  # query or document; None if the request has no role
    refine: bool | None = None  # final if given; None leaves it to the model's name and the role
    truncate: bool = True  # cut long texts to the context length; False makes them fail with ``text_too_long``
    options: RefineOptions = field(default_factory=RefineOptions)
    explain: bool = False  # also return the pairs that were used
    empty_texts: bool = False  # embed an empty text instead of refusing it
    cut: int | None = None  # dimension that the answer's vectors are cut to; None: D

    @property
    def is_bulk(self) -> bool:
        """Whether queries go before it: it is for an index, or of many items, or of several pictures."""
        pictures = sum(item.is_picture for item in self.items)
        return self.side == "document" or len(self.items) > _FEW or pictures > 1


@dataclass(frozen=True)
class AnswerRow:
    """The answer to one item."""

    vector: npt.NDArray[np.float32]  # (D,) unit-norm
    frozen: npt.NDArray[np.float32]  # (D,) before refinement
    moved: float = 0.0  # cosine distance of the two
    refined: bool = False  # whether it differs from frozen CLIP
    truncated: bool = False  # the text was cut to the context length
    tokens: int = 0  # of a text, after truncation; 0 for images and vectors
    used: tuple[Used, ...] | None = None  # the pairs that were used, nearest first; None unless explained
    why: Why | None = None  # why it moved as far as it did; None unless explained
    plain: str = ""  # why it was to be refined and stays plain, for people; empty where it moved, or was not to be
    scale: tuple[float, float] | None = None  # maps its scores to those of plain vectors, of a query that was refined
    presence: float | None = None  # of a query: whether the memory holds its answer, 0 to 1; None where it is not known
    found_by: FoundBy | None = None  # what found pairs; None where none was found, or nothing was to be refined
    word_ids: Sequence[str] = ()  # of the pairs that were found by words
    least: float | None = None  # the cosine from which a first result is right; None where it is not known, or not set


@dataclass(frozen=True)
class Embedded:
    """The answer."""

    rows: Sequence[AnswerRow]  # B rows, one per item
    degraded: Degraded | None  # why rows are frozen although refinement was on; None if nothing failed
    seconds: Mapping[str, float]  # of each step that ran: prepare, encode, refine (search and fusion)
    coverage: Mapping[Modality, Coverage]  # of each modality that was refined
    target: Target | None = None  # what they are compared with; None: documents, or nothing was to be refined

    @property
    def vectors(self) -> Vectors:
        """(B, D) float32, unit-norm."""
        return np.stack([row.vector for row in self.rows])

    def refinement(self, row: int, modality: Modality) -> Refinement:
        """One query of this modality, as a refinement of it alone."""
        one = self.rows[row]
        return Refinement(
            one.vector[None],
            one.frozen[None],
            degraded=self.degraded,
            coverage=self.coverage.get(modality),
            scale=None if one.scale is None else np.array([one.scale], np.float32),
            presence=None if one.presence is None else np.array([one.presence], np.float32),
        )

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(row.tokens for row in self.rows)


@dataclass(frozen=True)
class Asked:
    """What a request says about refinement; None where it says nothing."""

    refine: bool | None = None  # the field of that name
    prefix: Manner | None = None  # of the path
    alias: Manner | None = None  # meaning of the model's alias
    side: InputType | None = None  # query or document

    @property
    def role(self) -> InputType:
        """The side, a query when none was given."""
        return self.side or "query"

    @property
    def lacks_role(self) -> bool:
        """Whether the model's name leaves it to the side, and none is given."""
        return self.refine is None and self.prefix is None and self.alias == "refined" and self.side is None

    @property
    def refines(self) -> bool:
        """Decide, by the rules above.

        >>> Asked(alias="refined", side="document").refines, Asked(alias="refined", side="query").refines
        (False, True)
        >>> Asked(alias="query").refines, Asked(side="document", refine=True).refines
        (True, True)
        """
        if self.refine is not None:
            return self.refine
        manner = self.prefix or self.alias
        if manner == "plain" or (manner is None and self.side is None):
            return False
        return self.role == "query"


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


class Steps(dict[str, float]):
    """Seconds of each step."""

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds of a block to a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self[step] = self.get(step, 0.0) + time.perf_counter() - started


@dataclass
class _Work:
    """The state of one request."""

    request: EmbedRequest
    asked: Asked
    rows: dict[int, AnswerRow] = field(default_factory=dict)  # by the place of the item
    degraded: Degraded | None = None
    seconds: Steps = field(default_factory=Steps)
    coverage: dict[Modality, Coverage] = field(default_factory=dict)


class Embedder:
    """Embeds for the service; safe to use from several threads."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self.reco, self.settings = reco, settings
        self.aliases: dict[str, Manner] = dict(settings.aliases)
        """Name of the model -> what it refines; a dialect without a model field shows the first."""
        self.policy: dict[Modality, bool] = {side: reco.refines(side, "query") for side in MODALITIES}
        """Which queries the model refines, where a request does not force it."""
        self._k = reco.defaults["k"] or 1
        self._preparation, self._length = reco.encoder.preparation, reco.manifest.text.context_length
        self._batches = reco.encoder.batches_callers
        self.pixels = Pixels(reco.settings.max_pixels)
        """Room for the images that all requests decode at the same time."""
        self._searches_at_once = reco.settings.batch_size if self._batches else 0

    @property
    def dimension(self) -> int:
        """D."""
        return self.reco.manifest.dimension

    def embed(self, request: EmbedRequest, prefix: Manner | None = None) -> Embedded:
        """Embed B items to (B, D).

        Raises:
            Refused: no items or too many, an unknown model, or an item that cannot be embedded, by its name.
            RecoError: the encoder failed, the options are wrong, or the memory failed with on_memory_failure=fail.
        """
        self.check_size(request.items, request.options)
        if request.explain:
            self._check_pairs(len(request.items), request.options.get("k"))
        asked = self.interpret(request, prefix)
        work = _Work(request, asked)
        for modality in MODALITIES:
            self._embed_side(work, modality)
        rows = [work.rows[place] for place in range(len(request.items))]
        wanted = any(self._refines(asked, modality) for modality in MODALITIES)
        usual = self.reco.defaults["target"] if asked.role == "query" else None
        target = (request.options.get("target") or usual) if wanted else None
        return Embedded(rows, work.degraded, work.seconds, work.coverage, target)

    def interpret(self, request: EmbedRequest, prefix: Manner | None = None) -> Asked:
        """What a request says about refinement.

        Raises:
            Refused: 404, an unknown model; 400, a model that needs a role, and none is given.
        """
        asked = Asked(request.refine, prefix, manner_of(request.model, self.aliases), request.side)
        if asked.lacks_role:
            others = ", ".join(f"{name} ({manner})" for name, manner in self.aliases.items() if manner != "refined")
            message = f"the model {request.model!r:.80} must know whether an input is a query or a document"
            raise Refused(Failure(400, "role_missing", f"{message}: send input_type, or name another model: {others}"))
        return asked

    def check_size(self, items: Sequence[Item], options: RefineOptions) -> None:
        """Check a request against the limits, and its fusion against the model.

        Raises:
            Refused: no items or too many, a k that is too large, or a fusion that the model does not have.
        """
        if not items:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give at least one item"))
        if len(items) > self.settings.max_items:
            raise Refused(too_many_items(len(items), self.settings.max_items))
        self.check_images(item.is_picture for item in items)
        check_k(options.get("k"))
        fuser = options.get("fuser")
        if fuser is not None and fuser not in (known := self.reco.manifest.fusers):
            message = f"fuser is {fuser}, and the model has only: {', '.join(known)}"
            raise Refused(Failure(400, "unknown_fuser", message, "fuser"))

    def check_images(self, images: Iterable[bool]) -> None:
        """Limit the images that are decoded at once; takes whether each item is an image.

        Raises:
            Refused: 413, too many.
        """
        if (number := sum(images)) > self.settings.max_images:
            raise Refused(too_many_items(number, self.settings.max_images, "images", "max_images"))

    def prepare(self, item: Item, name: str, *, truncate: bool = True, empty: bool = False) -> EncoderInput:
        """Check, tokenise or decode one item for the encoder.

        Args:
            item: to prepare.
            name: of it, for messages.
            truncate: a text that is too long is cut, else it fails.
            empty: an empty text is taken as it is.

        Raises:
            Refused: it cannot be read, or the caller no longer waits.
        """
        still_wanted()
        try:
            if item.is_picture:
                return self._prepare_image(item.content)
            if isinstance(item.content, str):
                return self._prepare_text(item.content, truncate=truncate, empty=empty)
            with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
                vector = np.asarray(item.content, np.float32)
            return self._preparation.vector(vector, "a vector")
        except (Refused, ImageError, InputError) as error:
            raise Refused(failure_of(error).at(name)) from None

    def encode(self, ready: Sequence[EncoderInput], modality: Modality) -> Vectors:
        """Encode to (B, D) batch by batch while the caller waits; vectors are returned as they are."""
        arrays = [one.array for one in ready]
        counted = all(array.dtype == np.float32 for array in arrays)
        with nullcontext() if counted else self.reco.counters.encode_s.labels(modality).time():
            return self.reco.encoder.arrays(arrays, modality, lambda _: still_wanted())

    def vector(self, item: Item, name: str) -> npt.NDArray[np.float32]:
        """The frozen vector (D,) of one item; errors as of :meth:`prepare`."""
        vector: npt.NDArray[np.float32] = self.encode([self.prepare(item, name)], item.modality)[0]
        return vector

    def _refines(self, asked: Asked, modality: Modality) -> bool:
        return asked.refines and (asked.refine is True or self.policy[modality])

    def _check_pairs(self, items: int, k: int | None) -> None:
        """Limit the pairs that are shown, before they are searched.

        Raises:
            Refused: 413, too many.
        """
        k = k or self._k
        if (pairs := items * k) > MOST_PAIRS:
            message = f"{items:,} items with k = {k} would show {pairs:,} pairs, the limit is {MOST_PAIRS:,}"
            raise Refused(Failure(413, "too_many_pairs", f"{message}: send fewer items at once, or a smaller k", "k"))

    def _embed_side(self, work: _Work, modality: Modality) -> None:
        """Answer the items of one modality."""
        mine = [(place, item) for place, item in enumerate(work.request.items) if item.modality == modality]
        if not mine:
            return
        take_place()  # which this call left, if it has encoded another modality
        with work.seconds.timed("prepare"):
            ready = [self._ready(work.request, place, item) for place, item in mine]
        if self._batches:
            leave_place()
        with work.seconds.timed("encode"):
            frozen = self.encode(ready, modality)
        result, wanted = Refinement(frozen, frozen), self._refines(work.asked, modality)
        if wanted:
            result = self._refine(work, frozen, modality, [item for _, item in mine])
            work.degraded = work.degraded or result.degraded
            if result.coverage is not None:
                work.coverage[modality] = result.coverage
        moved = result.moved if wanted else np.zeros(len(mine), np.float32)
        refined = result.refined if wanted else np.zeros(len(mine), np.bool_)
        least = self._least(result, modality) if work.asked.role == "query" else None
        for row, ((place, _), one) in enumerate(zip(mine, ready, strict=True)):
            work.rows[place] = AnswerRow(
                result.vectors[row],
                frozen[row],
                float(moved[row]),
                bool(refined[row]),
                one.truncated,
                one.tokens,
                used_pairs(result, row) if work.request.explain else None,
                result.why[row] if result.why is not None else None,
                plain=result.why_plain(row) if wanted and not refined[row] else "",
                scale=None if result.scale is None else (float(result.scale[row, 0]), float(result.scale[row, 1])),
                presence=None if result.presence is None else float(result.presence[row]),
                found_by=_found_by(result, row),
                word_ids=result.word_ids[row] if result.word_ids else (),
                least=None if least is None else float(least[row]),
            )

    def _least(self, result: Refinement, modality: Modality) -> npt.NDArray[np.float32] | None:
        """The thresholds (B,) for an index of so many documents as the settings say."""
        if (documents := self.settings.documents) is None:
            return None
        precision = self.settings.precision
        return self.reco.match(result, None, modality=modality, precision=precision, documents=documents).least

    def _ready(self, request: EmbedRequest, place: int, item: Item) -> EncoderInput:
        name = request.names[place] if request.names else f"input[{place}]"
        return self.prepare(item, name, truncate=request.truncate, empty=request.empty_texts)

    def _refine(self, work: _Work, frozen: Vectors, modality: Modality, items: Sequence[Item]) -> Refinement:
        """Refine the vectors (N, D) of these items."""
        request, role = work.request, work.asked.role
        if role == "document" or request.explain or len(items) > self._searches_at_once:
            take_place()  # no batch of several callers
        still_wanted()
        options: RefineOptions = {**request.options, "explain": request.explain}
        texts = [item.content if isinstance(item.content, str) else None for item in items]
        with work.seconds.timed("refine"):
            return self.reco.refine_own(frozen, modality, ROLE_OF[role], options, texts, still_wanted)

    def _prepare_text(self, text: str, *, truncate: bool, empty: bool) -> EncoderInput:
        if not (empty or text.strip()):
            raise Refused(EMPTY)
        if is_bare_picture(text):
            raise Refused(IMAGE_AS_TEXT)
        ready = self._preparation.text(text[:_MOST_CHARS], "a text")
        cut = ready.truncated or len(text) > _MOST_CHARS
        if cut and not truncate:
            reads = f"the {self._length} tokens that the encoder reads"
            raise Refused(Failure(400, "text_too_long", f"a text is longer than {reads}: shorten it, or {_CUT}"))
        return replace(ready, truncated=True) if cut else ready

    def _prepare_image(self, image: Any) -> EncoderInput:
        most = self.settings.max_image_bytes
        data = image if isinstance(image, bytes) else image_bytes(image, max_bytes=most)
        if len(data) > most:
            raise Refused(too_many_bytes(len(data), most))
        if "image" not in self.reco.encoder.modalities:
            message = "the encoder of this service takes texts only, no images"
            raise Refused(Failure(400, "images_unsupported", message))
        try:
            return self._preparation.image(data, self.pixels.hold)
        except ImageError as error:
            raise error.about(f"an image ({len(data):,} bytes)") from None


def _found_by(result: Refinement, row: int) -> FoundBy | None:
    if result.word_ids and result.word_ids[row]:
        return "words"
    return "neighbours" if result.retrieved is not None and result.retrieved[row] else None


def check_k(k: int | None) -> None:
    """Limit the neighbours of a request.

    Raises:
        Refused: 400, too many.
    """
    if (k or 0) > MOST_K:
        raise Refused(Failure(400, "k_too_large", f"k is {k:,}, the limit is {MOST_K:,}", "k"))
