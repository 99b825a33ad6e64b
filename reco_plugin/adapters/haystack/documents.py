"""Embedders of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, component
from haystack.utils import Secret

from ...errors import InputError
from ...types import Vectors
from ..source import Embeds
from .embedder import HaystackEmbedder


class _Documents(HaystackEmbedder):
    """Documents in, copies with vectors out."""

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents and return copies of them; TypeError for anything else."""
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError(f"{type(self).__name__} embeds a list of Documents; a query's text: RecoTextEmbedder")
        vectors = self._vectors(documents).tolist()
        done = [self._with(document, vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": done, "meta": {"refine": self._refine} if done else {}}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents in a thread."""
        return await asyncio.to_thread(self.run, documents)

    def _vectors(self, documents: Sequence[Document]) -> Vectors:
        raise NotImplementedError

    def _with(self, document: Document, vector: list[float]) -> Document:
        return replace(document, embedding=vector)


@component
class RecoDocumentEmbedder(_Documents):
    """Embeds the contents of documents."""

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        """Also take the meta fields to embed before the content, and their separator."""
        # not super(), which is of the old class: @component makes a new one
        HaystackEmbedder.__init__(self, reco, url, api_key, settings, refine)
        self._fields, self._separator = meta_fields_to_embed or [], embedding_separator
        self._stored |= {"meta_fields_to_embed": meta_fields_to_embed, "embedding_separator": embedding_separator}

    def _vectors(self, documents: Sequence[Document]) -> Vectors:
        return self.source.texts([self._text(document) for document in documents], self.side)

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[name]) for name in self._fields if document.meta.get(name) is not None]
        return self._separator.join([*fields, document.content or ""])


@component
class RecoDocumentImageEmbedder(_Documents):
    """Embeds the images of documents: their ``blob``, or else the file that a meta field names."""

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
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
        source = {"type": "image", "file_path_meta_field": self._field}  # what Haystack's image embedders write
        return replace(document, embedding=vector, meta={**document.meta, "embedding_source": source})
