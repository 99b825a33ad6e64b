"""LlamaIndex: ``RecoEmbedding``, a multi-modal embedding; queries are refined for what the index holds.

``PlainSimilarityRetriever`` asks another retriever with it, and takes and gives scores on the scale of plain CLIP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, Self

from pydantic import Field, PrivateAttr, SecretStr, field_serializer, model_validator

from ..config import SECRET
from ..errors import ConfigError, InputError, importing
from ..types import ImageInput, InputType
from .source import Embeds, HasScores, IndexOf, VectorSource, as_lists, check_cosines, check_known, check_scale

with importing("llama-index-core", "llamaindex", "this adapter"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.embeddings import MultiModalEmbedding
    from llama_index.core.schema import ImageType, NodeWithScore, QueryBundle

_Vector = list[float]


class RecoEmbedding(MultiModalEmbedding):
    """Text and image embeddings of one space; the fields are those of :class:`~.source.VectorSource`.

    LlamaIndex's ``embeddings_cache`` is keyed by the text alone, for queries and nodes alike: with refinement on, it
    would answer a query with a node's vector, or with one of an older memory. It is refused then; an
    ``IngestionPipeline`` has its own cache, of nodes only.

    Example::

        Settings.embed_model = RecoEmbedding(settings={"model": "triton_models", "memory": "./memory"}, index="images")
    """

    model_name: str = Field("reco", description="For logs and traces")
    url: str | None = Field(None, frozen=True, description="Of a `reco serve`")
    api_key: SecretStr | None = Field(None, frozen=True, exclude=True, description="Bearer key for it")
    settings: dict[str, Any] | None = Field(None, frozen=True, description="Of Reco.open; keys in it are not stored")
    index: IndexOf | None = Field(None, frozen=True, description="What the index holds: texts, images or both")
    refine_queries: bool | None = Field(None, frozen=True, description="False: queries stay plain")
    refine_documents: bool = Field(False, frozen=True, description="Whether nodes are, those of a batch as one set")
    embeddings_cache: Any | None = Field(None, frozen=True, description="Only where nothing is refined")
    _source: VectorSource = PrivateAttr()

    def __init__(self, reco: Embeds | None = None, **fields: Any) -> None:
        """Take an opened object, or the ``url`` or ``settings`` to open at first use."""
        super().__init__(**fields)
        self._source = VectorSource(
            reco,
            url=self.url,
            api_key=self.api_key,
            settings=self.settings,
            index=self.index,
            refine_queries=self.refine_queries,
            refine_documents=self.refine_documents,
        )

    @model_validator(mode="before")
    @classmethod
    def _every_field_is_known(cls, fields: dict[str, Any]) -> dict[str, Any]:
        check_known(fields, {*cls.model_fields, "class_name"})  # the last is in what was stored
        return fields

    @model_validator(mode="after")
    def _cache_is_sound(self) -> Self:
        if self.embeddings_cache is not None and (self.refine_queries is not False or self.refine_documents):
            raise ConfigError(
                "embeddings_cache is keyed by the text alone and would mix refined queries with plain nodes: leave it "
                "out and use IngestionPipeline(cache=...), which holds nodes only; or say refine_queries=False"
            )
        return self

    @field_serializer("settings")
    def _without_keys(self, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if settings is None else {name: one for name, one in settings.items() if name not in SECRET}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What is printed: the keys of the settings are not."""
        for name, value in super().__repr_args__():
            yield name, self._without_keys(value) if name == "settings" else value

    @classmethod
    def class_name(cls) -> str:
        """Name in stored configurations."""
        return "RecoEmbedding"

    def get_image_query_embedding(self, image: ImageType) -> _Vector:
        """Embed an image as a query; LlamaIndex has no such method: use ``QueryBundle("", embedding=...)``."""
        return self._images([image], "query")[0]

    @property
    def source(self) -> VectorSource:
        """The source of vectors; :meth:`~.source.VectorSource.ask` tells what maps a query's scores."""
        return self._source

    def close(self) -> None:
        """Close what was opened here."""
        self._source.close()

    def _get_query_embedding(self, query: str) -> _Vector:
        return as_lists(self._source.texts([query], "query"))[0]

    async def _aget_query_embedding(self, query: str) -> _Vector:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> _Vector:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> _Vector:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[_Vector]:
        return as_lists(self._source.texts(texts, "document"))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[_Vector]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _get_image_embedding(self, img_file_path: ImageType) -> _Vector:
        return self._images([img_file_path], "document")[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> _Vector:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[_Vector]:
        return self._images(img_file_paths, "document")

    async def _aget_image_embeddings(self, img_file_paths: list[ImageType]) -> list[_Vector]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)

    def _images(self, images: list[ImageType], side: InputType) -> list[_Vector]:
        inputs: list[ImageInput] = [image.getvalue() if isinstance(image, BytesIO) else image for image in images]
        return as_lists(self._source.images(inputs, side))


class PlainSimilarityRetriever(BaseRetriever):
    """Asks another retriever with refined queries; scores and cut-off are on the scale of plain CLIP.

    Example::

        PlainSimilarityRetriever(index.as_retriever(), embedding, similarity_cutoff=0.25).retrieve("a red fox")

    A query is a text, or a ``QueryBundle`` with an ``image_path``.
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        embedding: RecoEmbedding,
        similarity_cutoff: float | None = None,
        cosine: Callable[[float], float] | None = None,
    ) -> None:
        """Take the retriever, which must use the vector that a ``QueryBundle`` holds, as those of indexes do.

        Args:
            retriever: of an index of this embedding's plain vectors.
            embedding: makes the queries.
            similarity_cutoff: cosine of plain CLIP that a result must have; None: all are given.
            cosine: makes a cosine of the retriever's score; None: it is one.
        """
        self._retriever, self._embedding = retriever, embedding
        self._least, self._cosine = similarity_cutoff, cosine
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = self._ask(query_bundle)
        check_scale(asked)
        found = self._retriever.retrieve(QueryBundle(query_bundle.query_str, embedding=as_lists(asked.vectors)[0]))
        raw = [one.get_score(raise_error=True) for one in found]
        cosines = raw if self._cosine is None else [self._cosine(score) for score in raw]
        check_cosines(cosines, type(self._retriever).__name__, made=self._cosine is not None)
        scores: list[float] = asked.plain_scores([cosines])[0].tolist()
        return [
            NodeWithScore(node=one.node, score=score)
            for one, score in zip(found, scores, strict=True)
            if self._least is None or score >= self._least
        ]

    def _ask(self, query_bundle: QueryBundle) -> HasScores:
        source = self._embedding.source
        if query_bundle.image_path:
            return source.ask([query_bundle.image_path], "image")
        if query_bundle.query_str:
            return source.ask([query_bundle.query_str], "text")
        raise InputError(
            "the query has neither a text nor an image_path, and a vector alone does not tell what its scores mean: "
            'QueryBundle("", image_path="query.jpg")'
        )

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
