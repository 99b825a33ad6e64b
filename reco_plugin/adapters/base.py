"""What all adapters share: where vectors come from, and which sides are refined.

A query is refined for what the index holds: a text that is refined for images finds less among texts than a plain one.
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
"""What an index holds; both: averages of a text and an image, or some of each."""
_TARGETS: dict[IndexOf, Target] = {"texts": "text", "images": "image", "both": "both"}


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

    def close(self) -> None:
        """Close it."""
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
        index: IndexOf = "texts",
        refine_queries: bool = True,
        refine_documents: bool = False,
    ) -> None:
        """Keep the options; opens nothing yet.

        Args:
            reco: an opened object, which the caller closes.
            url: of a `reco serve`, as in ``http://localhost:8080``.
            api_key: bearer key for it.
            settings: of :meth:`reco_plugin.Reco.open`, as in ``{"model": "triton_models", "memory": "./memory"}``.
            index: what the index holds, ``texts``, ``images``, or ``both``: averages of the two, or some of each.
                Queries are refined for that. The default is the documents of most frameworks.
            refine_queries: False leaves queries plain.
            refine_documents: whether documents are; off, so that vectors of an existing index stay valid. Documents of
                one call are refined as one set, see :meth:`reco_plugin.Reco.refine`.

        Raises:
            ConfigError: more than one of ``reco``, ``url`` and ``settings``, another thing than such a one, or a key
                without a URL.
            InputError: another index, or what is refined is told by something else than True or False.
        """
        check_place(reco, url, settings, keyed=api_key is not None)
        check_choice("index", index, tuple(_TARGETS))
        self._options: dict[str, Any] = {"url": url, "api_key": api_key, "settings": settings, "index": index}
        self._refines = {
            "query": check_flag("refine_queries", refine_queries),
            "document": check_flag("refine_documents", refine_documents),
        }
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
        target = self._target("text", side)
        return self.reco.embed_texts(texts, role=ROLE_OF[side], refine=self._refines[side], target=target)

    def images(self, images: Sequence[ImageInput], side: InputType) -> Vectors:
        """Embed B images, (B, D); (0, 0) without images."""
        if len(check_items(images, "images")) == 0:
            return np.empty((0, 0), np.float32)
        target = self._target("image", side)
        return self.reco.embed_images(images, role=ROLE_OF[side], refine=self._refines[side], target=target)

    def _target(self, modality: Modality, side: InputType) -> Target:
        """What vectors are compared with."""
        return _TARGETS[self._options["index"]] if side == "query" else other(modality)

    def close(self) -> None:
        """Close what was opened here; the next call opens it again."""
        with self._lock:
            if self._opened is not None and self._given is None:
                self._opened.close()
                self._opened = None

    def _open(self) -> Embeds:
        url, key = self._options["url"], self._options["api_key"]
        if url is not None:
            from ..client import Client

            return Client(url, api_key=key if key is None or isinstance(key, str) else key.get_secret_value())
        from ..reco import Reco

        return Reco.open(**(self._options["settings"] or {}))


def check_place(reco: object, url: object, settings: object, *, keyed: bool) -> None:
    """Refuse what vectors cannot come from: an opened object, the URL of a service, or settings.

    Raises:
        ConfigError: more than one of them, another thing, or a key without a URL.
    """
    if sum(value is not None for value in (reco, url, settings)) > 1:
        raise ConfigError("reco, url and settings exclude one another: vectors come from one place")
    if keyed and url is None:
        raise ConfigError("api_key is for a server, and there is no url")
    if reco is not None and not hasattr(reco, "embed_texts"):
        raise ConfigError(f"reco must be an opened Reco or Client, got {show(reco)}")
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f'settings must be a mapping, as in {{"memory": "./memory"}}, got {show(settings)}')


def check_known(given: Collection[str], known: Collection[str]) -> None:
    """Refuse fields that a framework's base class would ignore.

    Raises:
        ConfigError: an unknown one, with what may be meant.
    """
    for name in sorted(set(given) - set(known)):
        raise ConfigError(f"there is no field {name!r}: {did_you_mean(name, known)}")
