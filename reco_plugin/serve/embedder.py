"""The synchronous core: an :class:`EmbedRequest` in, an :class:`Embedded` out, over one :class:`~reco_plugin.Reco`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import ImageError, InputError
from ..options import RefineOptions
from ..preparation import EncoderInput
from ..reco import Reco
from ..refine import used_pairs
from ..types import MODALITIES, ROLE_OF, Coverage, Degraded, Modality, Refinement, Target, Vectors
from .embedding import AnswerCache, AnswerRow, Embedded, EmbedRequest, Item, RowKey, key_of
from .failures import Failure, Refused, failure_of, too_many_items
from .images import too_many_bytes
from .logs import span
from .policy import Asked, Manner, SidePolicy, manner_of, split_target
from .pool import leave_place, still_wanted, take_place
from .settings import ServeSettings

_CUT = 'let its end be cut: truncate "END" or true, truncation true (NVIDIA\'s clients send "NONE" unless told)'


@dataclass
class _Work:
    """The state of one request."""

    request: EmbedRequest
    asked: Asked
    rows: dict[int, AnswerRow]  # by the place of the item
    degraded: Degraded | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    coverage: dict[Modality, Coverage] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds of a block to a step, and show it in a trace."""
        started = time.perf_counter()
        try:
            with span(f"reco.{step}"):
                yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class _Todo:
    """An item that is not answered yet."""

    place: int
    ready: EncoderInput
    key: RowKey | None


class Embedder:
    """Embeds for the service; safe to use from several threads."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self.reco = reco
        self.aliases: dict[str, Manner] = dict(settings.aliases)
        """Name of the model -> what it refines; a dialect without a model field shows the first."""
        self.cache = AnswerCache(settings.cache_entries)
        """Rows of repeated inputs."""
        self.policy = side_policy(reco, settings)
        """Which sides are refined unless a request says otherwise."""
        self.settings, self._k = settings, reco.defaults["k"] or 1
        self.target: Target = reco.defaults.get("target") or "image"
        """What vectors for an index are compared with, unless a request says otherwise."""
        self.prepare = ItemPreparation(reco, settings)
        self._memory_is_ours = "://" not in reco.memory.location  # no other process writes to it
        self._batches = reco.encoder.batches_callers
        self._searches_at_once = reco.settings.batch_size if self._batches and self._memory_is_ours else 0

    @property
    def dimension(self) -> int:
        """D."""
        return self.reco.manifest.dimension

    def embed(self, request: EmbedRequest, prefix: Manner | None = None) -> Embedded:
        """Embed B items to (B, D); an item that cannot be embedded fails alone.

        Raises:
            Refused: no items or too many, or an unknown model.
            RecoError: the encoder failed, the options are wrong, or the memory failed with on_memory_failure=fail.
        """
        request = self._aimed(request)
        self.check_size(request.items, request.options)
        if request.explain:
            self._check_pairs(len(request.items), request.options.get("k"))
        asked = self.interpret(request, prefix)
        failed = {row: self._failed(item) for row, item in enumerate(request.items) if isinstance(item, Failure)}
        work = _Work(request, asked, failed)
        for modality in MODALITIES:
            self._side(work, modality)
        rows = [work.rows[place] for place in range(len(request.items))]
        wanted = any(asked.refines(modality, self.policy) for modality in MODALITIES)
        target = request.options.get("target") if wanted else None
        return Embedded(rows, work.degraded, work.seconds, work.coverage, target)

    def _aimed(self, request: EmbedRequest) -> EmbedRequest:
        """The request with its target: its field's, header's or model's; of queries the setting's, or images.

        Documents compete for queries, which are of the other modality unless the request says so.
        """
        model, named = split_target(request.model)
        usual = self.target if request.indexed and request.side != "document" else None
        target = request.options.get("target") or named or usual
        if target is None:
            return request
        return replace(request, model=model, options={**request.options, "target": target})

    def _failed(self, failure: Failure) -> AnswerRow:
        zeros = np.zeros(self.dimension, np.float32)
        return AnswerRow(zeros, zeros, failure=failure)

    def interpret(self, request: EmbedRequest, prefix: Manner | None = None) -> Asked:
        """What a request says about refinement.

        Raises:
            Refused: 404, an unknown model.
        """
        return Asked(request.refine, prefix, manner_of(split_target(request.model)[0], self.aliases), request.side)

    def check_size(self, items: Sequence[Item | Failure], options: RefineOptions) -> None:
        """Check a request against the limits, and its fusion against the model.

        Raises:
            Refused: no items or too many, a k that is too large, or a fusion that the model does not have.
        """
        if not items:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give at least one item"))
        if len(items) > self.settings.max_items:
            raise Refused(too_many_items(len(items), self.settings.max_items))
        self.check_images(isinstance(item, Item) and isinstance(item.content, bytes) for item in items)
        self.check_k(options.get("k"))
        fuser = options.get("fuser")
        if fuser is not None and fuser not in (known := self.reco.manifest.fusers):
            message = f"fuser is {fuser}, and the model has only: {', '.join(known)}"
            raise Refused(Failure(400, "unknown_fuser", message, "fuser"))

    def check_k(self, k: int | None) -> None:
        """Limit the neighbours that a request asks for.

        Raises:
            Refused: 400, too many.
        """
        if (k or 0) > self.settings.max_k:
            message = f"k is {k:,}, the limit is {self.settings.max_k:,} (max_k)"
            raise Refused(Failure(400, "k_too_large", message, "k"))

    def _check_pairs(self, items: int, k: int | None) -> None:
        """Limit the pairs that are shown, before they are looked for.

        Raises:
            Refused: 413, too many.
        """
        k = k or self._k
        if (pairs := items * k) > (most := self.settings.max_pairs):
            message = f"{items:,} items with k = {k} would show {pairs:,} pairs, the limit is {most:,} (max_pairs)"
            raise Refused(Failure(413, "too_many_pairs", f"{message}: send fewer items at once, or a smaller k", "k"))

    def check_images(self, images: Iterable[bool]) -> None:
        """Limit the images that are decoded at once; takes whether each item is an image.

        Raises:
            Refused: 413, too many.
        """
        if (number := sum(images)) > self.settings.max_images:
            raise Refused(too_many_items(number, self.settings.max_images, "images", "max_images"))

    def _side(self, work: _Work, modality: Modality) -> None:
        """Answer the items of one modality."""
        wanted = work.asked.refines(modality, self.policy)
        todo = self._unknown(work, modality, wanted)
        if not todo:
            return
        if self._batches:
            leave_place()
        with work.timed("encode"):
            frozen = self.encode([one.ready for one in todo], modality)
        result = Refinement(frozen, frozen)
        if wanted:
            if work.asked.role == "document" or work.request.explain or len(todo) > self._searches_at_once:
                take_place()  # no batch of several callers
            still_wanted()
            options: RefineOptions = {**work.request.options, "explain": work.request.explain}
            with work.timed("refine"):
                result = self.reco.refine(frozen, modality=modality, role=ROLE_OF[work.asked.role], **options)
            work.degraded = work.degraded or result.degraded
            if result.coverage is not None:
                work.coverage[modality] = result.coverage
        covered = () if result.coverage is None else result.coverage.covered
        moved = result.moved if wanted else np.zeros(len(todo), np.float32)
        refined = result.refined if wanted else np.zeros(len(todo), np.bool_)
        for row, one in enumerate(todo):
            answer = AnswerRow(
                result.vectors[row],
                frozen[row],
                float(moved[row]),
                bool(refined[row]),
                one.ready.truncated,
                one.ready.tokens,
                used_pairs(result, row) if work.request.explain else None,
                covered[row] if covered else None,
                result.why[row] if result.why is not None else None,
                plain=result.why_plain(row) if wanted else "",
            )
            work.rows[one.place] = answer
            if one.key is not None and result.degraded is None:
                self.cache.put(one.key, answer)

    def _unknown(self, work: _Work, modality: Modality, wanted: bool) -> list[_Todo]:
        """Fill in cached rows and failures of one modality; return the items to encode."""
        fresh = []
        for place, item in enumerate(work.request.items):
            if isinstance(item, Failure) or item.modality != modality:
                continue
            key = self._key(work, item, wanted)
            if key is not None and (row := self.cache.get(key)) is not None:
                work.rows[place] = row
            else:
                fresh.append((place, item, key))
        if not fresh:
            return []
        take_place()  # which this call left, if it has encoded another modality
        with work.timed("prepare"):
            prepared = self.prepare([item for _, item, _ in fresh], truncate=work.request.truncate)
        todo = []
        for (place, _, key), ready in zip(fresh, prepared, strict=True):
            if isinstance(ready, Failure):
                work.rows[place] = self._failed(ready)
            else:
                todo.append(_Todo(place, ready, key))
        return todo

    def _key(self, work: _Work, item: Item, wanted: bool) -> RowKey | None:
        """Key of an item in the cache; None if it must not be cached.

        A refined document depends on the others of its set; a memory on a server changes unnoticed; an explanation is
        more than a row; a text that is too long must fail if it is not to be truncated.
        """
        a_set, not_ours = work.asked.role == "document", not self._memory_is_ours
        if not self.cache.on or work.request.explain or not work.request.truncate or (wanted and (a_set or not_ours)):
            return None
        return key_of(item, refined=wanted, options=work.request.options, version=self.reco.memory.version)

    def encode(self, ready: Sequence[EncoderInput], modality: Modality) -> Vectors:
        """Encode to (B, D) batch by batch while the caller waits; vectors are returned as they are."""
        arrays = [one.array for one in ready]
        counted = all(array.dtype == np.float32 for array in arrays)
        with nullcontext() if counted else self.reco.counters.encode_s[modality].timed():
            return self.reco.encoder.arrays(arrays, modality, lambda _: still_wanted())


def side_policy(reco: Reco, settings: ServeSettings) -> SidePolicy:
    """The settings; for queries, the model's policy where they are unset."""

    def query(setting: bool | None, modality: Modality) -> bool:
        return reco.refines(modality, "query") if setting is None else setting

    return SidePolicy(
        query(settings.query_text, "text"),
        query(settings.query_image, "image"),
        settings.document_text,
        settings.document_image,
    )


class ItemPreparation:
    """Checks, tokenises and decodes items for the encoder, within the limits of the settings."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self._preparation, self._length = reco.encoder.preparation, reco.manifest.text.context_length
        self._most_bytes, self._most_chars = settings.max_image_bytes, settings.max_text_chars

    def __call__(self, items: Sequence[Item], *, truncate: bool) -> list[EncoderInput | Failure]:
        """Prepare texts, images and vectors, in order; a text that is too long fails unless it may be cut.

        Raises:
            Refused: the caller no longer waits.
        """
        return [self._one(item, truncate) for item in items]

    def _one(self, item: Item, truncate: bool) -> EncoderInput | Failure:
        still_wanted()
        if isinstance(item.content, str):
            return self._text(item.content, truncate)
        if isinstance(item.content, bytes):
            return self._image(item.content)
        try:
            return self._preparation.vector(item.content, "a vector")
        except InputError as error:
            return Failure(400, "invalid_vector", str(error))

    def _text(self, text: str, truncate: bool) -> EncoderInput | Failure:
        if len(text) > self._most_chars:
            limit = f"the limit is {self._most_chars:,} (max_text_chars)"
            return Failure(413, "text_too_long", f"a text has {len(text):,} characters, {limit}: shorten it")
        try:
            ready = self._preparation.text(text, "a text")
        except InputError as error:
            return Failure(400, "invalid_text", str(error))
        if ready.truncated and not truncate:
            reads = f"the {self._length} tokens that the encoder reads"
            return Failure(400, "text_too_long", f"a text is longer than {reads}: shorten it, or {_CUT}")
        return ready

    def _image(self, data: bytes) -> EncoderInput | Failure:
        if len(data) > self._most_bytes:
            return too_many_bytes(len(data), self._most_bytes)
        try:
            return self._preparation.image(data)
        except ImageError as error:
            return failure_of(error.about(f"an image ({len(data):,} bytes)"))
