"""The source of vectors that all adapters share.

A query is refined for the modality of the index. A text that is refined for images retrieves fewer texts than a plain
one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np

from ..errors import ConfigError
from ..types import ROLE_OF, ImageInput, InputType, Modality, Role, Target, Vectors, other
from ..values import check_choice, check_flag, check_items, did_you_mean, show

if TYPE_CHECKING:
    from pydantic import SecretStr


IndexOf: TypeAlias = Literal["texts", "images", "both"]
"""Contents of an index; both: averages of a text and an image, or a mixture of texts and images."""
_TARGETS: dict[IndexOf, Target] = {"texts": "text", "images": "image", "both": "both"}


class Embeds(Protocol):
    """An embedder, such as a :class:`reco_plugin.Reco` or a :class:`reco_plugin.client.Client`."""

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

    def close(self) -> None:
        """Release its resources."""
        ...


class SourceOptions(TypedDict, total=False):
    """Keywords of every adapter; see :class:`VectorSource`."""

    url: str | None
    api_key: str | SecretStr | None
    settings: Mapping[str, Any] | None
    index: IndexOf
    refine_queries: bool
    refine_documents: bool


class VectorSource:
    """An embedder, given or opened at first use, and the sides that it refines; safe to use from several threads."""

    def __init__(
        self,
        reco: Embeds | None = None,
        *,
        url: str | None = None,
        api_key: str | SecretStr | None = None,
        settings: Mapping[str, Any] | None = None,
        index: IndexOf = "texts",
        refine_queries: bool = True,
        refine_documents: bool = False,
    ) -> None:
        """Keep the options; opens nothing yet.

        Args:
            reco: an opened Reco or Client, which the caller closes.
            url: address of a `reco serve`, as in ``http://localhost:8080``.
            api_key: bearer key of that service.
            settings: arguments of :meth:`reco_plugin.Reco.open`, as in
                ``{"model": "triton_models", "memory": "./memory"}``.
            index: contents of the index, ``texts``, ``images`` or ``both``. Queries are refined for them.
            refine_queries: False leaves queries plain.
            refine_documents: True refines documents, those of one call as one set, see
                :meth:`reco_plugin.Reco.refine`. The vectors of an existing index are then no longer valid.

        Raises:
            ConfigError: more than one of ``reco``, ``url`` and ``settings``, one of another type, or a key without a
                URL.
            InputError: an unknown ``index``, or a flag that is neither True nor False.
        """
        check_source(reco, url, settings, has_key=api_key is not None)
        check_choice("index", index, tuple(_TARGETS))
        self._url, self._api_key, self._settings = url, api_key, settings
        self._query_target = _TARGETS[index]
        self._refines = {
            "query": check_flag("refine_queries", refine_queries),
            "document": check_flag("refine_documents", refine_documents),
        }
        self._given = self._opened = reco
        self._lock = threading.Lock()

    @property
    def reco(self) -> Embeds:
        """The embedder; it is opened if necessary."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def texts(self, texts: Sequence[str], side: InputType) -> Vectors:
        """Embed B texts, (B, D); (0, 0) without texts."""
        if len(check_items(texts, "texts")) == 0:
            return np.empty((0, 0), np.float32)
        target = self._target("text", side)
        return self.reco.embed_texts(texts, role=ROLE_OF[side], refine=self._refines[side], target=target)

    def images(self, images: Sequence[ImageInput], side: InputType) -> Vectors:
        """Embed B images, (B, D); (0, 0) without images."""
        if len(check_items(images, "images")) == 0:
            return np.empty((0, 0), np.float32)
        target = self._target("image", side)
        return self.reco.embed_images(images, role=ROLE_OF[side], refine=self._refines[side], target=target)

    def _target(self, modality: Modality, side: InputType) -> Target:
        """The modality that the vectors are compared with."""
        return self._query_target if side == "query" else other(modality)

    def close(self) -> None:
        """Close the embedder unless the caller gave it; the next call opens it again."""
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


def check_source(reco: object, url: object, settings: object, *, has_key: bool) -> None:
    """Check the options that name the source of vectors: an opened object, the URL of a service, or settings.

    Raises:
        ConfigError: more than one of them, one of another type, or a key without a URL.
    """
    if sum(value is not None for value in (reco, url, settings)) > 1:
        raise ConfigError("reco, url and settings exclude one another: give one of them")
    if has_key and url is None:
        raise ConfigError("api_key is for a service: give its url, too")
    if reco is not None and not hasattr(reco, "embed_texts"):
        raise ConfigError(f"reco must be an opened Reco or Client, got {show(reco)}")
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f'settings must be a mapping, as in {{"memory": "./memory"}}, got {show(settings)}')


def check_known(given: Collection[str], known: Collection[str]) -> None:
    """Check that there are no unknown fields, which a framework's base class would ignore.

    Raises:
        ConfigError: an unknown field; the message suggests a known one.
    """
    for name in sorted(set(given) - set(known)):
        raise ConfigError(f"there is no field {name!r}: {did_you_mean(name, known)}")
