"""Base of Haystack's embedders: they open at first use, and a pipeline can store them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from haystack import default_to_dict
from haystack.utils import Secret

from ...errors import ConfigError
from ...types import InputType
from ..source import Embeds, VectorSource


class HaystackEmbedder:
    """Embeds one side, and may refine it."""

    side: ClassVar[InputType] = "document"

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
    ) -> None:
        """Take an opened object, or options to open one at first use: see :class:`~..source.VectorSource`.

        Everything but an opened object is stored with the pipeline, a key as the name of its variable.

        Args:
            reco: an opened object.
            url: of a `reco serve`.
            api_key: bearer key for it.
            settings: of :meth:`reco_plugin.Reco.open`.
            refine: whether vectors are refined; None: only queries.
        """
        self._reco, self._key = reco, api_key
        self._refine = self.side == "query" if refine is None else refine
        self._stored: dict[str, Any] = {"url": url, "api_key": api_key, "settings": settings, "refine": self._refine}

    @cached_property
    def source(self) -> VectorSource:
        """The source of vectors; the key is read at first use."""
        return VectorSource(
            self._reco,
            url=self._stored["url"],
            api_key=self._key.resolve_value() if self._key else None,
            settings=self._stored["settings"],
            refine_queries=self._refine,
            refine_documents=self._refine,
        )

    def warm_up(self) -> None:
        """Open the source, if it is not open."""
        _ = self.source.reco

    def close(self) -> None:
        """Close what was opened here."""
        self.source.close()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that a pipeline stores; ConfigError for an embedder of an opened object."""
        if self._reco is not None:
            raise ConfigError(f"a {type(self).__name__} of an opened object cannot be stored: give url or settings")
        return default_to_dict(self, **self._stored)
