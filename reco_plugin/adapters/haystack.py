"""Haystack: embedders of queries, documents and images; queries are refined for what the index holds.

Haystack imports only modules that are allowed, so a stored pipeline is loaded by
``Pipeline.loads(text, allowed_modules=["reco_plugin.adapters.haystack"])``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..config import PREFIX, SECRET
from ..errors import ConfigError, InputError, importing
from ..types import InputType, Vectors
from ..values import check_flag
from .source import NO_SCALE, Embeds, IndexOf, VectorSource, check_cosines, check_index, check_place, has_scale

with importing("haystack-ai", "haystack", "this adapter"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret, deserialize_callable, serialize_callable


class HaystackEmbedder:
    """Embeds one side, and may refine it; opens at first use, and a pipeline can store it."""

    side: ClassVar[InputType] = "document"

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
    ) -> None:
        """Take an opened object, or options to open one at first use: see :class:`~.source.VectorSource`.

        Everything but an opened object is stored with the pipeline, a key as the name of its variable.

        Args:
            reco: an opened object.
            url: of a `reco serve`.
            api_key: bearer key for it; a text is never stored, so with one ``to_dict`` is an error.
            settings: of :meth:`reco_plugin.Reco.open`.
            refine: whether vectors are refined; None: only queries.

        Raises:
            ConfigError: more than one of the places that vectors come from, another thing, or a key without a URL.
            InputError: ``refine`` is neither True nor False.
        """
        if refine is not None:
            refine = check_flag("refine", refine)
        check_place(reco, url, settings, keyed=api_key is not None)
        self._reco, self._key = reco, Secret.from_token(api_key) if isinstance(api_key, str) else api_key
        self._stored: dict[str, Any] = {"url": url, "api_key": self._key, "settings": settings, "refine": refine}

    @cached_property
    def source(self) -> VectorSource:
        """The source of vectors; the key is read at first use."""
        return VectorSource(
            self._reco,
            url=self._stored["url"],
            api_key=self._key.resolve_value() if self._key else None,
            settings=self._stored["settings"],
            index=self._stored.get("index"),
            refine_queries=self._stored["refine"],
            refine_documents=bool(self._stored["refine"]),
        )

    def warm_up(self) -> None:
        """Open the source, if it is not open."""
        _ = self.source.reco

    def close(self) -> None:
        """Close what was opened here."""
        self.source.close()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that a pipeline stores; ConfigError for an opened object, and for a key in the settings."""
        if self._reco is not None:
            raise ConfigError(f"a {type(self).__name__} of an opened object cannot be stored: give url or settings")
        for name in sorted(SECRET.intersection(self._stored["settings"] or ())):
            raise ConfigError(
                f"settings hold {name}, which would be stored as text: set {PREFIX}{name.upper()} instead"
            )
        return default_to_dict(self, **self._stored)


@component
class RecoTextEmbedder(HaystackEmbedder):
    """Embeds the text of a query, refined for what the index holds."""

    side: ClassVar[InputType] = "query"

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
        index: IndexOf | None = None,
    ) -> None:
        """Also take what the index holds: texts, images or both."""
        # not super(), which is of the old class: @component makes a new one
        HaystackEmbedder.__init__(self, reco, url, api_key, settings, refine)
        check_index(index)
        self._stored["index"] = index

    @component.output_types(embedding=list[float], meta=dict[str, Any], scale=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embed a text, with the ``scale`` of its scores for :class:`RecoPlainScores`; TypeError for anything else.

        The scale is empty where there is no way back to plain scores.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"RecoTextEmbedder embeds a text, got {type(text).__name__}: RecoDocumentEmbedder for lists"
            )
        asked = self.source.ask([text], "text")
        numbers = [1.0, 0.0] if asked.scale is None else asked.scale[0].tolist()
        return {
            "embedding": asked.vectors.tolist()[0],
            "meta": {"refine": self.source.refines(self.side)},
            "scale": numbers if has_scale(asked) else [],
        }

    @component.output_types(embedding=list[float], meta=dict[str, Any], scale=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Embed a text in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class RecoPlainScores:
    """Brings the scores of documents that a refined query found to the scale of plain CLIP, and drops the low ones.

    It stands behind a retriever, whose scores must be cosines (``scale_score=False``) or be made such by ``cosine``,
    and takes the ``scale`` of :class:`RecoTextEmbedder`.
    """

    def __init__(self, score_threshold: float | None = None, cosine: Callable[[float], float] | None = None) -> None:
        """Say what is dropped, and what the retriever's scores are.

        Args:
            score_threshold: cosine of plain CLIP that a document must have; None: all are given.
            cosine: makes a cosine of the retriever's score, as in ``lambda distance: 1 - distance``; a pipeline
                stores the name of a function of a module. None: it is one.
        """
        self.score_threshold, self.cosine = score_threshold, cosine

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that a pipeline stores; Haystack's error for a function without a name in a module."""
        named = None if self.cosine is None else serialize_callable(self.cosine)
        return default_to_dict(self, score_threshold=self.score_threshold, cosine=named)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RecoPlainScores:
        """Make it of what a pipeline stored."""
        fields = data["init_parameters"]
        if fields.get("cosine") is not None:
            fields["cosine"] = deserialize_callable(fields["cosine"])
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], scale: list[float]) -> dict[str, Any]:
        """Map the scores; the order stays.

        Raises:
            ValueError: a document has no score.
            ConfigError: the query's scores have no way back to the scale of plain ones, or those of the documents are
                distances.
        """
        if not scale:
            raise ConfigError(NO_SCALE)
        factor, offset = scale
        cosines, done = [self._cosine(document) for document in documents], list[Document]()
        check_cosines(cosines, "the retriever", made=self.cosine is not None)
        for document, cosine in zip(documents, cosines, strict=True):
            score = factor * cosine + offset
            if self.score_threshold is None or score >= self.score_threshold:
                done.append(replace(document, score=score))
        return {"documents": done}

    def _cosine(self, document: Document) -> float:
        if document.score is None:
            raise ValueError(f"document {document.id} has no score: RecoPlainScores stands behind a retriever")
        return document.score if self.cosine is None else self.cosine(document.score)


class _Documents(HaystackEmbedder):
    """Documents in, copies with vectors out."""

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents and return copies of them; TypeError for anything else."""
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError(f"{type(self).__name__} embeds a list of Documents; a query's text: RecoTextEmbedder")
        vectors = self._vectors(documents).tolist()
        done = [self._with(document, vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": done, "meta": {"refine": bool(self._stored["refine"])} if done else {}}

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
        api_key: Secret | str | None = None,
        settings: dict[str, Any] | None = None,
        refine: bool | None = None,
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
    """Embeds the images of documents: their ``blob``, or else the file that a meta field names."""

    def __init__(
        self,
        reco: Embeds | None = None,
        url: str | None = None,
        api_key: Secret | str | None = None,
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
