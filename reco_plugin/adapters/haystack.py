"""Haystack: embedders of queries, documents and images; queries are refined for the contents of the index.

Haystack imports allowed modules only. Load a stored pipeline by
``Pipeline.loads(text, allowed_modules=["reco_plugin.adapters.haystack"])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

from ..errors import ConfigError, InputError, importing
from ..settings import PREFIX, SECRET
from ..types import InputType, Vectors
from ..values import check_choice, check_flag
from .base import Embeds, IndexOf, VectorSource, check_source

with importing("haystack-ai", "haystack", "this adapter"):
    from haystack import Document, component, default_to_dict
    from haystack.utils import Secret


class HaystackEmbedder:
    """Embeds queries or documents. It opens its source at first use, and a pipeline can store it."""

    side: ClassVar[InputType] = "document"

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool = False,
    ) -> None:
        """Take an opened object, or options to open one at first use: see :class:`~.VectorSource`.

        A pipeline stores the options, and a key as the name of its environment variable.

        Args:
            reco: an opened Reco or Client; it cannot be stored.
            url: address of a `reco serve`.
            api_key: bearer key of that service; with a ``str``, ``to_dict`` is an error, since keys are not stored.
            settings: arguments of :meth:`reco_plugin.Reco.open`.
            refine: whether vectors are refined.

        Raises:
            ConfigError: as :class:`~.VectorSource`.
            InputError: ``refine`` is neither True nor False.
        """
        check_flag("refine", refine)
        check_source(reco, url, settings, has_key=api_key is not None)
        self._reco, self._key = reco, Secret.from_token(api_key) if isinstance(api_key, str) else api_key
        self._stored: dict[str, Any] = {"url": url, "api_key": self._key, "settings": settings, "refine": refine}

    @cached_property
    def source(self) -> VectorSource:
        """The source of vectors. The key is read at first use."""
        return VectorSource(
            self._reco,
            url=self._stored["url"],
            api_key=self._key.resolve_value() if self._key else None,
            settings=self._stored["settings"],
            index=self._stored.get("index", "texts"),
            refine_queries=self._stored["refine"],
            refine_documents=self._stored["refine"],
        )

    def warm_up(self) -> None:
        """Open the source if necessary."""
        _ = self.source.reco

    def close(self) -> None:
        """Close the embedder unless the caller gave it."""
        self.source.close()

    def to_dict(self) -> dict[str, Any]:
        """Return the options to store; ConfigError for an opened object or a secret in the settings."""
        if self._reco is not None:
            raise ConfigError(f"a {type(self).__name__} of an opened object cannot be stored: give url or settings")
        for name in sorted(SECRET.intersection(self._stored["settings"] or ())):
            raise ConfigError(
                f"settings hold {name}, which would be stored as text: set {PREFIX}{name.upper()} instead"
            )
        return default_to_dict(self, **self._stored)


@component
class RecoTextEmbedder(HaystackEmbedder):
    """Embeds the text of a query, refined for the contents of the index."""

    side: ClassVar[InputType] = "query"

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool = True,
        index: IndexOf = "texts",
    ) -> None:
        """Also take the contents of the index: texts, images or both."""
        # not super(): @component replaces the class
        HaystackEmbedder.__init__(self, reco, url, api_key, settings, refine)
        check_choice("index", index, get_args(IndexOf))
        self._stored["index"] = index

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Embed a text; TypeError for anything else."""
        if not isinstance(text, str):
            raise TypeError(
                f"RecoTextEmbedder embeds a text, got {type(text).__name__}: RecoDocumentEmbedder for lists"
            )
        vector = self.source.texts([text], self.side)[0]
        return {"embedding": vector.tolist(), "meta": {"refine": self._stored["refine"]}}


class _Documents(HaystackEmbedder):
    """Takes documents and returns copies with vectors."""

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents and return copies of them; TypeError for anything else."""
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError(f"{type(self).__name__} embeds a list of Documents; a query's text: RecoTextEmbedder")
        vectors = self._vectors(documents).tolist()
        done = [self._with(document, vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": done, "meta": {"refine": self._stored["refine"]} if done else {}}

    def _vectors(self, documents: Sequence[Document]) -> Vectors:
        raise NotImplementedError

    def _with(self, document: Document, vector: list[float]) -> Document:
        return replace(document, embedding=vector)


@component
class RecoDocumentEmbedder(_Documents):
    """Embeds the texts of documents."""

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool = False,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        """Also take the meta fields to embed before the content, and their separator."""
        HaystackEmbedder.__init__(self, reco, url, api_key, settings, refine)  # as above
        self._fields, self._separator = meta_fields_to_embed or [], embedding_separator
        self._stored |= {"meta_fields_to_embed": meta_fields_to_embed, "embedding_separator": embedding_separator}

    def _vectors(self, documents: Sequence[Document]) -> Vectors:
        return self.source.texts([self._text(document) for document in documents], self.side)

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[name]) for name in self._fields if document.meta.get(name) is not None]
        return self._separator.join([*fields, document.content or ""])


@component
class RecoDocumentImageEmbedder(_Documents):
    """Embeds the images of documents, from their ``blob`` or from the file that a meta field names."""

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool = False,
        file_path_meta_field: str = "file_path",
        root_path: str = "",
    ) -> None:
        """Also take the meta field of the path, and the folder of relative paths."""
        HaystackEmbedder.__init__(self, reco, url, api_key, settings, refine)  # as above
        self._field, self._root = file_path_meta_field, root_path
        self._stored |= {"file_path_meta_field": file_path_meta_field, "root_path": root_path}

    def _vectors(self, documents: Sequence[Document]) -> Vectors:
        return self.source.images([self._image(document) for document in documents], self.side)

    def _image(self, document: Document) -> Path | bytes:
        if document.blob is not None:
            return document.blob.data
        if path := document.meta.get(self._field):
            return Path(self._root, path)
        raise InputError(f"document {document.id} has neither a blob nor a path in meta[{self._field!r}]")

    def _with(self, document: Document, vector: list[float]) -> Document:
        source = {"type": "image", "file_path_meta_field": self._field}  # as Haystack's image embedders write
        return replace(document, embedding=vector, meta={**document.meta, "embedding_source": source})
