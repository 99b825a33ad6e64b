"""LlamaIndex: ``RecoEmbedding``, a multi-modal embedding; queries are refined for the contents of the index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Self

from pydantic import Field, PrivateAttr, SecretStr, field_serializer, model_validator

from ..errors import ConfigError, importing
from ..settings import SECRET
from ..types import ImageInput, InputType
from .base import Embeds, IndexOf, VectorSource, check_known

with importing("llama-index-core", "llamaindex", "this adapter"):
    from llama_index.core.embeddings import MultiModalEmbedding
    from llama_index.core.schema import ImageType

_Vector = list[float]


class RecoEmbedding(MultiModalEmbedding):
    """Embeddings of texts and images in one space; the fields are those of :class:`~.VectorSource`.

    ``embeddings_cache`` is an error while anything is refined. LlamaIndex keys it by the text alone, so a query could
    get the vector of a node, or one from an older memory. An ``IngestionPipeline`` has its own cache, of nodes only.

    Example::

        Settings.embed_model = RecoEmbedding(settings={"model": "triton_models", "memory": "./memory"}, index="images")
    """

    model_name: str = Field("reco", description="Name in logs and traces")
    url: str | None = Field(None, frozen=True, description="Address of a `reco serve`")
    api_key: SecretStr | None = Field(None, frozen=True, exclude=True, description="Bearer key of that service")
    settings: dict[str, Any] | None = Field(
        None, frozen=True, description="Arguments of Reco.open; secrets are not stored"
    )
    index: IndexOf = Field("texts", frozen=True, description="Contents of the index: texts, images or both")
    refine_queries: bool = Field(True, frozen=True, description="False: queries stay plain")
    refine_documents: bool = Field(False, frozen=True, description="True: nodes are refined, a batch as one set")
    embeddings_cache: Any | None = Field(None, frozen=True, description="Only if nothing is refined")
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
        check_known(fields, {*cls.model_fields, "class_name"})  # stored configurations have class_name
        return fields

    @model_validator(mode="after")
    def _cache_is_sound(self) -> Self:
        if self.embeddings_cache is not None and (self.refine_queries or self.refine_documents):
            raise ConfigError(
                "embeddings_cache is keyed by the text alone and would mix refined queries with plain nodes: leave it "
                "out and use IngestionPipeline(cache=...), which holds nodes only; or set refine_queries=False"
            )
        return self

    @field_serializer("settings")
    def _without_keys(self, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if settings is None else {name: one for name, one in settings.items() if name not in SECRET}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Return the fields to print, without the secrets of the settings."""
        for name, value in super().__repr_args__():
            yield name, self._without_keys(value) if name == "settings" else value

    @classmethod
    def class_name(cls) -> str:
        """Return the name in stored configurations."""
        return "RecoEmbedding"

    def get_image_query_embedding(self, image: ImageType) -> _Vector:
        """Embed an image as a query for ``QueryBundle("", embedding=...)``; LlamaIndex has no such method."""
        return self._images([image], "query")[0]

    def close(self) -> None:
        """Close the embedder unless the caller gave it."""
        self._source.close()

    def _get_query_embedding(self, query: str) -> _Vector:
        return self._texts([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> _Vector:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> _Vector:
        return self._texts([text], "document")[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[_Vector]:
        return self._texts(texts, "document")

    def _get_image_embedding(self, img_file_path: ImageType) -> _Vector:
        return self._images([img_file_path], "document")[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> _Vector:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[_Vector]:
        return self._images(img_file_paths, "document")

    def _texts(self, texts: list[str], side: InputType) -> list[_Vector]:
        vectors: list[_Vector] = self._source.texts(texts, side).tolist()
        return vectors

    def _images(self, images: list[ImageType], side: InputType) -> list[_Vector]:
        inputs: list[ImageInput] = [image.getvalue() if isinstance(image, BytesIO) else image for image in images]
        vectors: list[_Vector] = self._source.images(inputs, side).tolist()
        return vectors
