"""The synchronous core: embed the inputs of one request through one :class:`~reco_plugin.Reco`.

Every dialect translates its JSON to an :class:`EmbedRequest`, and an :class:`Embedded` back. Input i of the request is
row i of the answer. If an input cannot be embedded, the request fails and the error names the input.

The first rule that applies decides whether queries are refined:

1. The field ``refine``, true or false. Only ``true`` refines documents, too.
2. The prefix of the path (``/plain``, ``/refined``), for engines that can send nothing else.
3. The alias of the model: *plain*, *refined* or *query*. An input without a role is a query under *query* and under a
   prefix. The alias *refined* refuses it: some clients send no role for documents either (Weaviate's module for Jina),
   and an index of documents that were refined as queries finds less than plain CLIP.
4. The role. Queries are refined; documents and inputs without a role stay plain.

Queries are compared with vectors that do not change, so they may move. Documents compete with one another: moving some
of them costs the others up to 60 points (docs/method.md). The documents of one request are refined as one set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoders.local import EncoderInput
from ..errors import ImageError, InputError
from ..fusion.refiner import used_pairs
from ..options import RefineOptions
from ..reco import Reco
from ..types import MODALITIES, ROLE_OF, Coverage, Degraded, InputType, Modality, Refinement, Target, Vectors
from .executor import PixelBudget, acquire_slot, checkpoint, release_slot
from .failures import Failure, Refused, failure_of, too_many_bytes, too_many_items
from .schemas import RefinedItem, Threshold
from .service_settings import MAX_K, RefineMode, ServeSettings
from .wire import EMPTY, IMAGE_AS_TEXT, Item, decode_image, is_bare_image

MAX_EXPLAINED_PAIRS = 50_000
"""Pairs in one explanation: items times k. Each takes a kilobyte of the answer."""
_SMALL_REQUEST = 16
"""Items of a request that is not bulk. So many rows are written as JSON in a millisecond."""
_MAX_CHARS = 50_000
"""Characters of a text that are tokenized. The rest is cut, as is everything beyond the context length."""
_LET_CUT = 'let its end be cut: truncate "END" or true, truncation true (NVIDIA\'s clients send "NONE" by default)'
_TINY = 1e-12


@dataclass(frozen=True)
class EmbedRequest:
    """Inputs to embed, and how."""

    inputs: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    """The parts of each input by its name, as in ``input[3]``. Several parts become one vector, the direction of their
    mean. An input without parts gets a zero vector if the request has an image, and is an error otherwise."""
    model: str | None = None  # alias; None if the dialect has none
    input_type: InputType | None = None  # query or document; None if the request names no role
    refine: bool | None = None  # None leaves it to the prefix, the alias and the role
    truncate: bool = True  # cut long texts; False refuses them (``text_too_long``)
    options: RefineOptions = field(default_factory=RefineOptions)
    explain: bool = False  # also return the pairs that were used
    empty_texts: bool = False  # embed an empty text instead of refusing it
    dimension: int | None = None  # length to which refined vectors are cut; None: D

    @cached_property
    def items(self) -> list[tuple[str, Item]]:
        """All parts of all inputs, each with the name of its input."""
        return [(name, part) for name, parts in self.inputs.items() for part in parts]

    @cached_property
    def images(self) -> int:
        """Number of images."""
        return sum(item.is_image for _, item in self.items)

    @property
    def is_bulk(self) -> bool:
        """Whether queries run first: the request is for an index, or has many items or several images."""
        return self.input_type == "document" or len(self.items) > _SMALL_REQUEST or self.images > 1


@dataclass(frozen=True)
class Embedded:
    """The answer to a request."""

    rows: list[RefinedItem]  # one for each input
    degraded: Degraded | None  # why rows are plain although they should be refined; None if nothing failed
    seconds: Mapping[str, float]  # of each step that ran: prepare, encode, refine
    coverage: Mapping[Modality, Coverage]  # of each modality that was to be refined
    target: Target | None = None  # modality that refined queries are compared with; None if nothing was to be refined

    @property
    def vectors(self) -> Vectors:
        """The vectors (B, D) float32, of norm 1."""
        return np.stack([row.embedding for row in self.rows])

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(row.tokens for row in self.rows)

    def refinement(self, row: int, modality: Modality) -> Refinement:
        """Return one query of this modality as a refinement of a single vector."""
        one = self.rows[row]
        return Refinement(
            one.embedding[None],
            one.frozen[None],
            degraded=self.degraded,
            coverage=self.coverage.get(modality),
            scale=None if one.scale is None else np.array([one.scale], np.float32),
            presence=None if one.presence is None else np.array([one.presence], np.float32),
        )


def alias_mode(model: str | None, aliases: Mapping[str, RefineMode]) -> RefineMode | None:
    """Return what an alias of the model stands for; None without an alias. Refuse an unknown one (404)."""
    if model is None:
        return None
    if model not in aliases:
        known = ", ".join(f"{name} ({mode})" for name, mode in aliases.items())
        message = f"there is no model {model!r:.80} here, only: {known}"
        raise Refused(Failure(404, "model_not_found", message, "model"))
    return aliases[model]


def should_refine(refine: bool | None, mode: RefineMode | None, input_type: InputType | None) -> bool:
    """Apply the rules above. ``mode`` is that of the prefix, or else of the alias.

    >>> should_refine(None, "refined", "document"), should_refine(None, "refined", "query")
    (False, True)
    >>> should_refine(None, "query", None), should_refine(True, None, "document"), should_refine(None, None, None)
    (True, True, False)
    """
    if refine is not None:
        return refine
    return mode != "plain" and input_type != "document" and not (mode is None and input_type is None)


class Embedder:
    """Embeds for the service. Safe to use from several threads."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self.reco, self.settings = reco, settings
        self.aliases: dict[str, RefineMode] = dict(settings.aliases)
        """The mode of each alias. A dialect without a field for the model shows the first alias."""
        self.policy: dict[Modality, bool] = {modality: reco.refines(modality, "query") for modality in MODALITIES}
        """Whether the model refines queries of each modality. ``refine: true`` overrules it."""
        self.pixels = PixelBudget(reco.settings.max_pixels)
        """Memory for the images that all requests decode at the same time."""
        self.dimension = reco.manifest.dimension
        """D."""
        self._defaults = reco.defaults
        self._preparation, self._context_length = reco.encoder.preparation, reco.manifest.text.context_length
        self._has_shared_batches = reco.encoder.batches_callers
        self._shared_searches = reco.settings.batch_size if self._has_shared_batches else 0

    def embed(self, request: EmbedRequest, prefix: RefineMode | None = None) -> Embedded:
        """Embed B inputs to B vectors (D,), refined if the rules above say so.

        Args:
            request: at least one input.
            prefix: the mode of the path.
        """
        self._check(request)
        wanted = should_refine(request.refine, self._mode(request, prefix), request.input_type)
        role = ROLE_OF[request.input_type or "query"]
        options: RefineOptions = {**request.options, "explain": request.explain}
        seconds: dict[str, float] = {}
        rows: dict[int, RefinedItem] = {}
        degraded: Degraded | None = None
        coverage: dict[Modality, Coverage] = {}
        for modality in MODALITIES:
            places = [place for place, (_, item) in enumerate(request.items) if item.modality == modality]
            if not places:
                continue
            acquire_slot()  # the other modality was encoded without one
            with _timed(seconds, "prepare"):
                inputs = [self._prepare(request, *request.items[place]) for place in places]
            if self._has_shared_batches:
                release_slot()
            with _timed(seconds, "encode"):
                frozen = self.encode(inputs, modality)
            is_refined = wanted and (request.refine is True or self.policy[modality])
            if is_refined:
                if role == "candidate" or request.explain or len(places) > self._shared_searches:
                    acquire_slot()  # other callers do not share this search
                checkpoint()
                texts = [item.content if isinstance(item.content, str) else None for _, item in request.items]
                with _timed(seconds, "refine"):
                    result = self.reco.refine_own(
                        frozen, modality, role, options, [texts[place] for place in places], checkpoint
                    )
                degraded = degraded or result.degraded
                if result.coverage is not None:
                    coverage[modality] = result.coverage
            else:
                result = Refinement(frozen, frozen)
            thresholds = self._thresholds(result, modality) if role == "query" else None
            rows |= zip(
                places, _rows(result, inputs, thresholds, is_refined=is_refined, explain=request.explain), strict=True
            )
        if len(rows) > _SMALL_REQUEST:
            acquire_slot()  # writing the answer computes, too
        target = request.options.get("target") or (self._defaults["target"] if role == "query" else None)
        refines_any = wanted and (request.refine is True or any(self.policy.values()))
        parts = (rows[place] for place in range(len(rows)))
        joined = [
            _join(index, list(islice(parts, len(items))), request, self.dimension)
            for index, items in enumerate(request.inputs.values())
        ]
        return Embedded(joined, degraded, seconds, coverage, target if refines_any else None)

    def _check(self, request: EmbedRequest) -> None:
        """Check a request against the limits, and its options against the model."""
        if not request.images:
            for name, parts in request.inputs.items():
                if not parts:
                    raise Refused(EMPTY.at(name))
        number, k, fuser = len(request.items), request.options.get("k"), request.options.get("fuser")
        if not number:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give at least one item"))
        self.check_number(number)
        self.check_images(request.images)
        check_k(k)
        if fuser is not None and fuser not in (known := self.reco.manifest.fusers):
            message = f"fuser is {fuser}, and the model has only: {', '.join(known)}"
            raise Refused(Failure(400, "unknown_fuser", message, "fuser"))
        k = k or self._defaults["k"] or 1
        if request.explain and (pairs := number * k) > MAX_EXPLAINED_PAIRS:
            message = f"{number:,} items with k = {k} would show {pairs:,} pairs, the limit is {MAX_EXPLAINED_PAIRS:,}"
            raise Refused(Failure(413, "too_many_pairs", f"{message}: send fewer items at once, or a smaller k", "k"))

    def check_number(self, number: int, name: str | None = None, setting: str = "max_items") -> None:
        """Refuse more items in one field than a setting allows (413)."""
        if number > (limit := getattr(self.settings, setting)):
            raise Refused(too_many_items(number, limit, name, setting))

    def check_images(self, number: int) -> None:
        """Refuse too many images (413)."""
        self.check_number(number, "images", "max_images")

    def _mode(self, request: EmbedRequest, prefix: RefineMode | None) -> RefineMode | None:
        """Return the mode of the prefix, else of the alias. Refuse an alias that needs a role without one (400)."""
        of_alias = alias_mode(request.model, self.aliases)
        if of_alias == "refined" and prefix is None and request.refine is None and request.input_type is None:
            others = ", ".join(f"{name} ({mode})" for name, mode in self.aliases.items() if mode != "refined")
            message = f"the model {request.model!r:.80} must know whether an input is a query or a document"
            raise Refused(Failure(400, "role_missing", f"{message}: send input_type, or name another model: {others}"))
        return prefix or of_alias

    def prepare(self, item: Item, name: str, *, truncate: bool = True, empty: bool = False) -> EncoderInput:
        """Check one item, and tokenize or decode it for the encoder.

        Args:
            item: a text, an image or a vector.
            name: its field, for messages.
            truncate: cut a long text; False refuses it.
            empty: accept an empty text.
        """
        checkpoint()
        try:
            if item.is_image:
                return self._prepare_image(item.content)
            if isinstance(item.content, str):
                return self._prepare_text(item.content, truncate=truncate, empty=empty)
            with np.errstate(over="ignore"):  # a number that is too large becomes infinite, which is refused
                vector = np.asarray(item.content, np.float32)
            return self._preparation.vector(vector, "a vector")
        except (Refused, ImageError, InputError) as error:
            raise Refused(failure_of(error).at(name)) from None

    def encode(self, inputs: Sequence[EncoderInput], modality: Modality) -> Vectors:
        """Encode to (B, D) in batches while the caller waits. Vectors are returned as they are."""
        arrays = [one.array for one in inputs]
        are_vectors = all(array.dtype == np.float32 for array in arrays)
        with nullcontext() if are_vectors else self.reco.counters.encode_s.labels(modality).time():
            return self.reco.encoder.arrays(arrays, modality, lambda _: checkpoint())

    def embed_one(self, item: Item, name: str) -> npt.NDArray[np.float32]:
        """Return the frozen vector (D,) of one item."""
        vector: npt.NDArray[np.float32] = self.encode([self.prepare(item, name)], item.modality)[0]
        return vector

    def _prepare(self, request: EmbedRequest, name: str, item: Item) -> EncoderInput:
        return self.prepare(item, name, truncate=request.truncate, empty=request.empty_texts)

    def _prepare_text(self, text: str, *, truncate: bool, empty: bool) -> EncoderInput:
        if not (empty or text.strip()):
            raise Refused(EMPTY)
        if is_bare_image(text):
            raise Refused(IMAGE_AS_TEXT)
        tokens = self._preparation.text(text[:_MAX_CHARS], "a text")
        is_cut = tokens.truncated or len(text) > _MAX_CHARS
        if is_cut and not truncate:
            limit = f"the {self._context_length} tokens that the encoder reads"
            raise Refused(Failure(400, "text_too_long", f"a text is longer than {limit}: shorten it, or {_LET_CUT}"))
        return replace(tokens, truncated=True) if is_cut else tokens

    def _prepare_image(self, image: Any) -> EncoderInput:
        limit = self.settings.max_image_bytes
        data = image if isinstance(image, bytes) else decode_image(image, max_bytes=limit)
        if len(data) > limit:
            raise Refused(too_many_bytes(len(data), limit))
        if "image" not in self.reco.encoder.modalities:
            message = "the encoder of this service takes texts only, no images"
            raise Refused(Failure(400, "images_unsupported", message))
        try:
            return self._preparation.image(data, self.pixels.hold)
        except ImageError as error:
            raise error.about(f"an image ({len(data):,} bytes)") from None

    def _thresholds(self, result: Refinement, modality: Modality) -> npt.NDArray[np.float32] | None:
        """Return the cosines (B,) from which on a first result is right; None unless ``documents`` is configured."""
        if (documents := self.settings.documents) is None:
            return None
        precision = self.settings.precision
        return self.reco.match(result, None, modality=modality, precision=precision, documents=documents).least


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds of the block to those of a step."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - started


def _rows(
    result: Refinement,
    inputs: Sequence[EncoderInput],
    thresholds: npt.NDArray[np.float32] | None,
    *,
    is_refined: bool,
    explain: bool,
) -> Iterator[RefinedItem]:
    """Yield a row for each item of one modality."""
    moved = result.moved if is_refined else np.zeros(len(inputs), np.float32)
    refined = result.refined if is_refined else np.zeros(len(inputs), np.bool_)
    for row, one in enumerate(inputs):
        word_ids = result.word_ids[row] if result.word_ids else ()
        has_neighbours = result.retrieved is not None and result.retrieved[row]
        why = result.why[row] if result.why is not None else None
        yield RefinedItem.model_construct(
            index=row,
            embedding=result.vectors[row],
            refined=bool(refined[row]),
            plain=result.why_plain(row) or None if is_refined and not refined[row] else None,
            moved=float(moved[row]),
            scale=None if result.scale is None else (float(result.scale[row, 0]), float(result.scale[row, 1])),
            presence=None if result.presence is None else float(result.presence[row]),
            matched_by="words" if word_ids else "neighbours" if has_neighbours else None,
            word_ids=list(word_ids) or None,
            threshold=None if thresholds is None else Threshold.of(float(thresholds[row])),
            truncated=one.truncated,
            tokens=one.tokens,
            reason=None if why is None else str(why),
            why=why,
            used=list(used_pairs(result, row)) if explain else None,
            frozen=result.frozen[row],
        )


def _join(index: int, parts: Sequence[RefinedItem], request: EmbedRequest, dimension: int) -> RefinedItem:
    """Join the parts of one input. The mean of several says nothing about how each was refined."""
    if len(parts) == 1:
        [row] = parts
        row.index = index
    else:
        zeros = np.zeros(dimension, np.float32)
        row = RefinedItem.model_construct(
            index=index,
            embedding=mean_direction([part.embedding for part in parts]) if parts else zeros,
            frozen=mean_direction([part.frozen for part in parts]) if parts else zeros,
            truncated=any(part.truncated for part in parts),
            tokens=sum(part.tokens for part in parts),
        )
    if request.dimension is not None:  # scores of full vectors do not fit
        row.embedding, row.frozen = (mean_direction([one[: request.dimension]]) for one in (row.embedding, row.frozen))
        row.scale = row.threshold = None
    return row


def mean_direction(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return the normalized mean of P vectors (D,).

    >>> mean_direction([np.float32([1, 0]), np.float32([0, 1])]).round(3).tolist()
    [0.7070000171661377, 0.7070000171661377]
    """
    mean = np.stack(parts).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), _TINY), np.float32)


def check_k(k: int | None) -> None:
    """Refuse too many neighbours per query (400)."""
    if (k or 0) > MAX_K:
        raise Refused(Failure(400, "k_too_large", f"k is {k:,}, the limit is {MAX_K:,}", "k"))
