"""The synchronous core: an :class:`EmbedRequest` in, an :class:`Embedded` out, over one :class:`~reco_plugin.Reco`.

Every dialect translates JSON to the request, and the answer back. Item i of the request is row i of the answer, also
when it failed. An item that a dialect could not read (bad base64, a URL that does not answer) is a :class:`Failure` in
the request and in its row of the answer. Rows of repeated inputs are kept in an :class:`AnswerCache`.

Which vectors are refined: query or document, text or image, and three ways to say so.
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

Which queries of those are, while refinement is switched on by degrees: a share of them, by :func:`arm_of`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..calibration.why import Why
from ..errors import ImageError, InputError
from ..options import RefineOptions
from ..preparation import EncoderInput
from ..reco import Reco
from ..refine import used_pairs
from ..types import MODALITIES, ROLE_OF, Arm, Coverage, Degraded, InputType, Modality, Refinement, Target, Used, Vectors
from .failures import Failure, Refused, failure_of, too_many_bytes, too_many_items
from .lanes import leave_place, still_wanted, take_place
from .settings import Manner, ServeSettings

RowKey: TypeAlias = tuple[Hashable, ...]
_MOST_CHARS = 50_000
"""Of a text that are read; the rest is cut, as what is beyond the context length."""
_PLAIN_ARM = "it is in the plain arm of refined_share"
_CUT = 'let its end be cut: truncate "END" or true, truncation true (NVIDIA\'s clients send "NONE" unless told)'
_SNIFFED = 1024
_NO_PIXELS = (
    ((b"<svg", b"<?xml", b"<!doctype svg"), "an SVG or XML file: draw it into a PNG first"),
    ((b"<!doctype html", b"<html"), "a web page: give the image itself"),
    ((b"%pdf",), "a PDF: draw a page of it into a PNG first"),
    ((b"{", b"["), "JSON: give the image itself"),
)


@dataclass(frozen=True)
class Item:
    """One item to embed."""

    content: str | bytes | npt.NDArray[np.float32]  # a text, an encoded image, or a CLIP vector (D,) of unit norm
    modality: Modality  # what it is, or what the vector embeds

    @classmethod
    def text(cls, text: str) -> Item:
        """A text."""
        return cls(text, "text")

    @classmethod
    def image(cls, data: bytes) -> Item:
        """An encoded image."""
        return cls(data, "image")

    @classmethod
    def vector(cls, vector: npt.ArrayLike, modality: Modality) -> Item:
        """A CLIP vector (D,) of this encoder, made elsewhere.

        Raises:
            Refused: not numbers.
        """
        try:
            with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused later, by row
                return cls(np.asarray(vector, np.float32), modality)
        except (TypeError, ValueError):
            message = f"a vector must be a list of numbers, got {vector!r:.60}"
            raise Refused(Failure(400, "invalid_vector", message)) from None


def pixels_expected(data: bytes) -> bytes:
    """Return the bytes, unless they begin as a format without pixels.

    Raises:
        Refused: 415 ``image_type_unsupported``, naming the format.
    """
    head = data[:_SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, what in _NO_PIXELS:
        if head.startswith(beginnings):
            raise Refused(Failure(415, "image_type_unsupported", f"this is {what}"))
    return data


@dataclass(frozen=True)
class EmbedRequest:
    """A request to embed items."""

    items: Sequence[Item | Failure] = ()  # at least one; a Failure is an item that could not be read
    model: str | None = None  # alias; None if the dialect has none
    side: InputType | None = None  # query or document; None if the caller did not say
    refine: bool | None = None  # final if given; None leaves it to prefix, alias, side and policy
    truncate: bool = True  # cut long texts to the context length; False makes them fail with ``text_too_long``
    options: RefineOptions = field(default_factory=RefineOptions)
    explain: bool = False  # also return the pairs that were used
    indexed: bool = True  # whether the vectors are compared with an index: of images, unless ``target`` says otherwise
    shared: bool | None = None  # whether ``refined_share`` decides; None: unless it forces ``refine``, or explains
    arm: Arm | None = None  # what was decided, see :meth:`Embedder.choose_arm`
    cut: int | None = None  # dimension that the answer's vectors are cut to; None: D


@dataclass(frozen=True)
class AnswerRow:
    """The answer to one item; without more than the vectors, which are zeros, to one that failed."""

    vector: npt.NDArray[np.float32]  # (D,) unit-norm
    frozen: npt.NDArray[np.float32]  # (D,) before refinement
    moved: float = 0.0  # cosine distance of the two
    refined: bool = False  # whether it differs from frozen CLIP
    truncated: bool = False  # the text was cut to the context length
    tokens: int = 0  # of a text, after truncation; 0 for images and vectors
    used: tuple[Used, ...] | None = None  # the pairs that were used, nearest first; None unless explained
    covered: bool | None = None  # whether the memory knows this text candidate; None for all else
    why: Why | None = None  # why it moved as far as it did; None unless explained
    failure: Failure | None = None  # why the item failed; None where it did not
    plain: str = ""  # why it was to be refined and stays plain, for people; empty where it moved, or was not to be
    scale: tuple[float, float] | None = None  # maps its scores to those of plain vectors, of a query that was refined
    presence: float | None = (
        None  # of a query: whether the memory holds its answer, from 0 to 1; None: it cannot be known
    )


@dataclass(frozen=True)
class Embedded:
    """The answer."""

    rows: Sequence[AnswerRow]  # B rows, one per item
    degraded: Degraded | None  # why rows are frozen although refinement was on; None if nothing failed
    seconds: Mapping[str, float]  # of each step that ran: prepare, encode, refine (search and fusion)
    coverage: Mapping[Modality, Coverage]  # of each modality that was refined now
    target: Target | None = None  # what they are compared with; None: the other modality, or nothing was to be refined
    arm: Arm | None = None  # which the request was in; None where ``refined_share`` decided nothing

    @property
    def vectors(self) -> Vectors:
        """(B, D) float32, unit-norm; zeros where the item failed."""
        return np.stack([row.vector for row in self.rows])

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(row.tokens for row in self.rows)

    def whole(self, field_name: str | None = None) -> Embedded:
        """Return itself, for dialects that cannot report the failure of one item.

        Raises:
            Refused: the first failure, naming the item as ``input[3]``; without ``field_name``, it does so already.
        """
        for number, row in enumerate(self.rows):
            if row.failure is not None:
                raise Refused(row.failure.at(f"{field_name}[{number}]") if field_name else row.failure)
        return self


@dataclass
class CacheCounts:
    """Hits and misses since the start, and the size of the cache now."""

    hits: int = 0
    misses: int = 0
    entries: int = 0


class AnswerCache:
    """An LRU cache of rows; safe to use from several threads."""

    def __init__(self, entries: int) -> None:
        self._most, self._rows, self._lock = entries, OrderedDict[RowKey, AnswerRow](), threading.Lock()
        self.seen = CacheCounts()

    @property
    def on(self) -> bool:
        """Whether it keeps any rows."""
        return self._most > 0

    def get(self, key: RowKey) -> AnswerRow | None:
        """Look up a row."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self.seen.misses += 1
            else:
                self.seen.hits += 1
                self._rows.move_to_end(key)
            return row

    def all_of(self, keys: Sequence[RowKey]) -> list[AnswerRow] | None:
        """Look up rows that are of use together; None where one is missing, which counts nothing."""
        with self._lock:
            rows = [row for row in map(self._rows.get, keys) if row is not None]
            if len(rows) < len(keys):
                return None
            self.seen.hits += len(keys)
            for key in keys:
                self._rows.move_to_end(key)
        return rows

    def put(self, key: RowKey, row: AnswerRow) -> None:
        """Keep a row, and drop the least recently used one."""
        own = replace(row, vector=row.vector.copy(), frozen=row.frozen.copy())  # a view would keep the whole batch
        with self._lock:
            self._rows[key] = own
            self._rows.move_to_end(key)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
            self.seen.entries = len(self._rows)


def key_of(item: Item, *, refined: bool, options: RefineOptions, version: int) -> RowKey:
    """The key of a row: the input, and for a refined row the options and the version of the memory."""
    kind = type(item.content).__name__
    digest = hashlib.blake2b(raw_of(item), digest_size=16).digest()
    return (item.modality, kind, digest, *((repr(sorted(options.items())), version) if refined else ()))


def raw_of(item: Item) -> bytes:
    """The content of an item: a text in UTF-8, an image as it was sent, a vector in little-endian float32."""
    match item.content:
        case str():
            return item.content.encode("utf-8", "surrogatepass")
        case bytes():
            return item.content
        case _:
            return item.content.astype("<f4").tobytes()


def arm_of(unit: bytes, share: float) -> Arm:
    """Whether a unit, as a user or a session, is among the share that is refined: the same in every process.

    Its place between 0 and 1 is fixed, so that a larger share only moves units from plain to refined.

    >>> [arm_of(b"user-4711", share) for share in (0.0, 0.25, 0.5, 1.0)]
    ['plain', 'plain', 'refined', 'refined']
    """
    place = int.from_bytes(hashlib.blake2b(unit, digest_size=8, person=b"reco-arm").digest(), "big")
    return "refined" if place < share * 2**64 else "plain"


def content_of(items: Iterable[Item | Failure]) -> bytes:
    """A digest of all items that could be read: the unit of a request that names none."""
    content = hashlib.blake2b()
    for item in items:
        if isinstance(item, Item):
            raw = raw_of(item)
            content.update(f"{item.modality} {type(item.content).__name__} {len(raw)}:".encode())
            content.update(raw)
    return content.digest()


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
    if model is None or "@" not in model:
        return model, None
    name, _, target = model.partition("@")
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


@cache
def _has_opentelemetry() -> bool:
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


def span(name: str) -> AbstractContextManager[Any]:
    """A span below the current one; the request's own comes from OpenTelemetry's instrumentation of FastAPI."""
    if not _has_opentelemetry():
        return nullcontext()
    from opentelemetry import trace

    return trace.get_tracer("reco_plugin").start_as_current_span(name)


@dataclass
class _Work:
    """The state of one request."""

    request: EmbedRequest
    asked: Asked
    rows: dict[int, AnswerRow]  # by the place of the item
    degraded: Degraded | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    coverage: dict[Modality, Coverage] = field(default_factory=dict)

    def refines(self, modality: Modality, policy: SidePolicy) -> bool:
        """Whether items of a modality are refined."""
        return self.request.arm != "plain" and self.asked.refines(modality, policy)

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
    text: str | None  # where it is one


class Embedder:
    """Embeds for the service; safe to use from several threads."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self.reco = reco
        self._memory_is_ours = reco.memory.alone
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
        self._batches = reco.encoder.batches_callers
        self._searches_at_once = reco.settings.batch_size if self._batches else 0

    @property
    def dimension(self) -> int:
        """D."""
        return self.reco.manifest.dimension

    def choose_arm(self, request: EmbedRequest, prefix: Manner | None = None, unit: bytes = b"") -> Arm | None:
        """Whether a request is among the refined share; None where the share decides nothing.

        That is, where nothing would be refined, or the caller forces ``refine``; and of documents, which must not
        change, and explanations, which show what refinement does.

        Args:
            request: what to embed.
            prefix: of the URL.
            unit: whom it is for, as a user or a session; empty: it is decided by all items of the request together,
                so that those which become one vector, or one answer, are in one arm.

        Raises:
            Refused: 404, an unknown model.
        """
        asked, share = self.interpret(request, prefix), self.settings.refined_share
        shared = (request.refine is None and not request.explain) if request.shared is None else request.shared
        sides = {item.modality for item in request.items if isinstance(item, Item)}
        if not shared or asked.role != "query" or not any(asked.refines(side, self.policy) for side in sides):
            return None
        return arm_of(unit or (content_of(request.items) if 0.0 < share < 1.0 else b""), share)

    def embed(self, request: EmbedRequest, prefix: Manner | None = None) -> Embedded:
        """Embed B items to (B, D); an item that cannot be embedded fails alone.

        Raises:
            Refused: no items or too many, or an unknown model.
            RecoError: the encoder failed, the options are wrong, or the memory failed with on_memory_failure=fail.
        """
        work = self._begin(request, prefix)
        for modality in MODALITIES:
            self._side(work, modality)
        return self._end(work)

    def recall(self, request: EmbedRequest, prefix: Manner | None = None) -> Embedded | None:
        """The answer of :meth:`embed` where the cache has all of it, at once; else None.

        Raises:
            Refused: as :meth:`embed`.
        """
        if not self.cache.on:
            return None
        work = self._begin(request, prefix)
        items = [(place, item) for place, item in enumerate(work.request.items) if isinstance(item, Item)]
        keys = [self._key(work, item, work.refines(item.modality, self.policy)) for _, item in items]
        known = [key for key in keys if key is not None]
        rows = self.cache.all_of(known) if len(known) == len(items) else None
        if rows is None:
            return None
        work.rows.update((place, row) for (place, _), row in zip(items, rows, strict=True))
        return self._end(work)

    def _begin(self, request: EmbedRequest, prefix: Manner | None) -> _Work:
        """Check a request; errors as in :meth:`embed`."""
        request = self._aimed(request)
        self.check_size(request.items, request.options)
        if request.explain:
            self._check_pairs(len(request.items), request.options.get("k"))
        asked = self.interpret(request, prefix)
        failed = {row: self._failed(item) for row, item in enumerate(request.items) if isinstance(item, Failure)}
        return _Work(request, asked, failed)

    def _end(self, work: _Work) -> Embedded:
        """The answer, when there is a row for each item."""
        request = work.request
        rows = [self._row(work, place, item) for place, item in enumerate(request.items)]
        wanted = any(work.refines(modality, self.policy) for modality in MODALITIES)
        target = request.options.get("target") if wanted else None
        return Embedded(rows, work.degraded, work.seconds, work.coverage, target, request.arm)

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

    def _row(self, work: _Work, place: int, item: Item | Failure) -> AnswerRow:
        """The row of an item, with what the cache does not keep: that only its arm keeps it plain."""
        row = work.rows[place]
        if work.request.arm != "plain" or isinstance(item, Failure) or row.failure is not None:
            return row
        return replace(row, plain=_PLAIN_ARM) if work.asked.refines(item.modality, self.policy) else row

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
        wanted = work.refines(modality, self.policy)
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
                texts = [one.text for one in todo]
                result = self.reco.refine_own(frozen, modality, ROLE_OF[work.asked.role], options, texts)
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
                plain=result.why_plain(row) if wanted and not refined[row] else "",
                scale=None if result.scale is None else (float(result.scale[row, 0]), float(result.scale[row, 1])),
                presence=None if result.presence is None else float(result.presence[row]),
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
        for (place, item, key), ready in zip(fresh, prepared, strict=True):
            if isinstance(ready, Failure):
                work.rows[place] = self._failed(ready)
            else:
                todo.append(_Todo(place, ready, key, item.content if isinstance(item.content, str) else None))
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
        self._most_bytes = settings.max_image_bytes
        self._takes_images = "image" in reco.encoder.modalities

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
        try:
            ready = self._preparation.text(text[:_MOST_CHARS], "a text")
        except InputError as error:
            return Failure(400, "invalid_text", str(error))
        cut = ready.truncated or len(text) > _MOST_CHARS
        if cut and not truncate:
            reads = f"the {self._length} tokens that the encoder reads"
            return Failure(400, "text_too_long", f"a text is longer than {reads}: shorten it, or {_CUT}")
        return replace(ready, truncated=cut)

    def _image(self, data: bytes) -> EncoderInput | Failure:
        if len(data) > self._most_bytes:
            return too_many_bytes(len(data), self._most_bytes)
        if not self._takes_images:
            return Failure(400, "images_unsupported", "the encoder of this service takes texts only, no images")
        try:
            return self._preparation.image(data)
        except ImageError as error:
            return failure_of(error.about(f"an image ({len(data):,} bytes)"))
