"""The source of an adapter's vectors, and which of them are refined.

A query is refined for what the index holds: a text that is refined for images finds less among texts than a plain one.
"""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..types import ROLE_OF, UNMOVED, ImageInput, InputType, Modality, Role, Target, Vectors, other
from ..values import check_flag, check_items, did_you_mean, show

if TYPE_CHECKING:
    from pydantic import SecretStr

IndexOf: TypeAlias = Literal["texts", "images", "both"]
"""What an index holds; both: averages of a text and an image, or some of each."""
_TARGETS: dict[IndexOf, Target] = {"texts": "text", "images": "image", "both": "both"}
NO_SCALE = (
    "scores of this refined query have no way back to the scale of plain CLIP, where thresholds are: so it is "
    "without the gate, with another fuser than reco, and for an index of both texts and images. Search the store "
    "itself, without a threshold"
)
_TEXTS_ASSUMED = (
    "queries are refined for texts, since no document was embedded here and the index is taken to hold texts: say"
    ' index="images" or "both" if it does not, or index="texts"'
)


class HasVectors(Protocol):
    """The result of a refinement."""

    @property
    def vectors(self) -> Vectors:
        """(B, D) float32, unit-norm."""
        ...


class HasScores(HasVectors, Protocol):
    """The result of embedding queries: what their scores are on the scale of plain ones, and the way back."""

    @property
    def moved(self) -> npt.NDArray[np.float32]:
        """(B,) cosine distance between frozen and refined; NaN where an older service does not say."""
        ...

    @property
    def scale(self) -> npt.NDArray[np.float32] | None:
        """(B, 2) factors and what is added; None where nothing is known, or nothing moved."""
        ...

    def plain_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Scores (B, ...) of the vectors, on the scale of plain ones."""
        ...

    def refined_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Plain scores, one number or (B, ...), as scores of the vectors."""
        ...


def has_scale(asked: HasScores) -> bool:
    """Whether scores of B queries can be brought to the scale of plain ones: they stayed plain, or have a scale."""
    return asked.scale is not None or bool((asked.moved <= UNMOVED).all())


def check_scale(asked: HasScores) -> None:
    """Refuse queries whose scores have no way back to the scale of plain ones.

    Raises:
        ConfigError: they moved, and how their scores changed is not known.
    """
    if not has_scale(asked):
        raise ConfigError(NO_SCALE)


_TIE = 1e-4


def check_cosines(cosines: Sequence[float], whose: str, *, made: bool) -> None:
    """Refuse scores of one query's results, the best first, that are distances.

    Args:
        cosines: as the store tells them, or as ``cosine=`` made them.
        whose: they are, for the message.
        made: whether ``cosine=`` made them.

    Raises:
        ConfigError: they rise, or one is beyond 1.
    """
    rising = any(later > sooner + _TIE for sooner, later in pairwise(cosines))
    if rising or any(abs(score) > 1 + _TIE for score in cosines):
        seen = "rise, the best first" if rising else "lie beyond 1"
        if made:
            raise ConfigError(
                f"the scores of {whose} {seen}, as cosine= makes them: the store may tell cosines already, or "
                "(1 + cosine) / 2; docs/adapters.md#scores-and-thresholds has what stores tell"
            )
        raise ConfigError(
            f"the scores of {whose} {seen}, so they are distances: say cosine=lambda distance: 1 - distance, or "
            "1 - distance / 2 of squared Euclidean ones, as of FAISS"
        )


class Embeds(Protocol):
    """The methods that adapters call, of a :class:`reco_plugin.Reco` or a :class:`reco_plugin.client.Client`."""

    def embed_texts(
        self, texts: Sequence[str], *, role: Role = ..., refine: bool | None = ..., target: Target | None = ...
    ) -> Vectors:
        """Embed B texts, (B, D)."""
        ...

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = ...,
        refine: bool | None = ...,
        target: Target | None = ...,
    ) -> Vectors:
        """Embed B images, (B, D)."""
        ...

    def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = ...,
        refine: bool | None = ...,
        target: Target | None = ...,
    ) -> HasScores:
        """Embed B texts or images, and say what their scores are on the scale of plain ones."""
        ...

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = ..., target: Target | None = ...
    ) -> HasVectors:
        """Refine (B, D) vectors of this encoder."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class SourceOptions(TypedDict, total=False):
    """Keywords of every adapter; see :class:`VectorSource`."""

    url: str | None
    api_key: str | SecretStr | None
    settings: Mapping[str, Any] | None
    index: IndexOf | None
    refine_queries: bool | None
    refine_documents: bool


class VectorSource:
    """An object that embeds, given or opened at first use, and which sides are refined.

    Safe to use from several threads, since frameworks run a synchronous adapter in threads.
    """

    def __init__(
        self,
        reco: Embeds | None = None,
        *,
        url: str | None = None,
        api_key: str | SecretStr | None = None,
        settings: Mapping[str, Any] | None = None,
        index: IndexOf | None = None,
        refine_queries: bool | None = None,
        refine_documents: bool = False,
    ) -> None:
        """Keep the options; opens nothing yet.

        Args:
            reco: an opened object, which the caller closes.
            url: of a `reco serve`, as in ``http://localhost:8080``.
            api_key: bearer key for it.
            settings: of :meth:`reco_plugin.Reco.open`, as in ``{"model": "triton_models", "memory": "./memory"}``.
            index: what the index holds, ``texts``, ``images``, or ``both``: averages of the two, or some of each.
                Queries are refined for that; None: for what was embedded here as documents, else texts, with a warning
                at the first text query.
            refine_queries: False leaves queries plain; True refines them for the other modality where no ``index`` is
                named.
            refine_documents: whether documents are; off, so that vectors of an existing index stay valid. Documents of
                one call are refined as one set, see :meth:`reco_plugin.Reco.refine`.

        Raises:
            ConfigError: more than one of ``reco``, ``url`` and ``settings``, another thing than such a one, a key
                without a URL, or another index.
            InputError: what is refined is told by something else than True or False.
        """
        check_place(reco, url, settings, keyed=api_key is not None)
        self._url, self._api_key, self._settings = url, api_key, settings
        self._index = index
        check_index(index)
        self._refine_queries = None if refine_queries is None else check_flag("refine_queries", refine_queries)
        self._refine_documents = check_flag("refine_documents", refine_documents)
        self._told, self._indexed = False, frozenset[Modality]()
        self._given = self._opened = reco
        self._lock = threading.Lock()

    @property
    def reco(self) -> Embeds:
        """The object that embeds, opened if it was not."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def texts(self, texts: Sequence[str], side: InputType) -> Vectors:
        """Embed B texts, (B, D); (0, 0) without texts."""
        if len(check_items(texts, "texts")) == 0:
            return np.empty((0, 0), np.float32)
        self._note("text", side)
        refine = self.refines(side)
        return self.reco.embed_texts(texts, role=ROLE_OF[side], refine=refine, target=self._target("text", side))

    def images(self, images: Sequence[ImageInput], side: InputType) -> Vectors:
        """Embed B images, (B, D); (0, 0) without images."""
        if len(check_items(images, "images")) == 0:
            return np.empty((0, 0), np.float32)
        self._note("image", side)
        refine = self.refines(side)
        return self.reco.embed_images(images, role=ROLE_OF[side], refine=refine, target=self._target("image", side))

    def ask(self, items: Sequence[ImageInput] | Sequence[str], modality: Modality) -> HasScores:
        """Embed B queries, one or more, to ``vectors`` (B, D), with what maps their scores to the scale of plain ones.

        ``plain_scores`` of the answer brings a store's cosines to it, for a threshold that was set on plain CLIP;
        ``refined_scores`` makes of that threshold what a store has to be told for each query.
        """
        refine = self.refines("query")
        return self.reco.embed(items, modality=modality, refine=refine, target=self._target(modality, "query"))

    def refine(
        self, vectors: Vectors, modality: Modality, side: InputType, among: Collection[Modality] = ()
    ) -> Vectors:
        """Refine (B, D) plain vectors, if this side is refined.

        ``among``: what the documents of a query are, where no index was named; () where there are none to compare with.
        """
        if not self.refines(side):
            return vectors
        target = self._target(modality, side, among)
        return self.reco.refine(vectors, modality=modality, role=ROLE_OF[side], target=target).vectors

    def refines(self, side: InputType) -> bool:
        """Whether vectors of a side are refined: queries unless told otherwise, for what the index holds."""
        return self._refine_documents if side == "document" else self._refine_queries is not False

    def _note(self, modality: Modality, side: InputType) -> None:
        if side == "document":
            self._indexed |= {modality}

    def _target(self, modality: Modality, side: InputType, among: Collection[Modality] = ()) -> Target:
        """What vectors are compared with; the other modality where nothing says so, and of documents always."""
        if side == "query" and self._index is not None:
            return _TARGETS[self._index]
        if side == "document" or (self._refine_queries and not among):
            return other(modality)
        if among := among or self._indexed:
            return "both" if len(among) > 1 else next(iter(among))
        if modality == "text" and not self._told and self._refine_queries is None:
            self._told = True
            warnings.warn(_TEXTS_ASSUMED, stacklevel=4)
        return "text"

    def close(self) -> None:
        """Close what was opened here; the next call opens it again."""
        with self._lock:
            if self._opened is not None and self._given is None:
                self._opened.close()
                self._opened = None

    def _open(self) -> Embeds:
        if self._url is not None:
            from ..client import Client

            key = self._api_key
            return Client(self._url, api_key=key if key is None or isinstance(key, str) else key.get_secret_value())
        from ..reco import Reco

        return Reco.open(**(self._settings or {}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the options: another process opens its own object."""
        if self._given is not None:
            raise TypeError("an adapter of an opened object cannot be copied to a process: give url or settings")
        again = partial(
            VectorSource,
            url=self._url,
            api_key=self._api_key,
            settings=self._settings,
            index=self._index,
            refine_queries=self._refine_queries,
            refine_documents=self._refine_documents,
        )
        return again, ()


def check_place(reco: object, url: object, settings: object, *, keyed: bool) -> None:
    """Refuse what vectors cannot come from: an opened object, the URL of a service or settings, or none of them.

    Raises:
        ConfigError: more than one of them, another thing, or a key without a URL.
    """
    given = [name for name, value in (("reco", reco), ("url", url), ("settings", settings)) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude one another: vectors come from one place")
    if keyed and url is None:
        raise ConfigError("api_key is for a server, and there is no url")
    embed = getattr(reco, "embed_texts", None)
    if reco is not None and (embed is None or inspect.iscoroutinefunction(embed)):
        found = show(reco) if isinstance(reco, str | os.PathLike) else type(reco).__name__
        raise ConfigError(
            f"reco must be an opened Reco or Client, got {found}: a service is given as url=..., and a memory as "
            'settings={"memory": ...}'
        )
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f'settings must be a mapping, as in {{"memory": "./memory"}}, got {show(settings)}')


def check_known(given: Collection[str], known: Collection[str]) -> None:
    """Refuse fields that a framework's base class would ignore.

    Raises:
        ConfigError: an unknown one, with what may be meant.
    """
    for name in sorted(set(given) - set(known)):
        raise ConfigError(f"there is no field {name!r}: {did_you_mean(name, known)}")


def check_index(index: object) -> None:
    """Refuse an index that is none of :data:`IndexOf`, or None.

    Raises:
        ConfigError: naming the known ones.
    """
    if index is not None and index not in get_args(IndexOf):
        raise ConfigError(f"index is {index!r:.60}: say what it holds, {' or '.join(map(repr, get_args(IndexOf)))}")


def as_lists(vectors: Vectors) -> list[list[float]]:
    """Rows of (B, D) as lists of floats, for frameworks."""
    rows: list[list[float]] = vectors.tolist()
    return rows
