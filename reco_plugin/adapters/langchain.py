"""LangChain: ``RecoEmbeddings`` for any vector store; queries are refined for the contents of the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from ..errors import importing
from ..types import ImageInput
from .base import Embeds, SourceOptions, VectorSource

with importing("langchain-core", "langchain", "this adapter"):
    from langchain_core.embeddings import Embeddings


class RecoEmbeddings(Embeddings):
    """Embeddings of texts and images in one space. LangChain's ``a…`` methods call these methods in a thread.

    Example::

        embeddings = RecoEmbeddings(settings={"model": "triton_models", "memory": "./memory"}, index="images")
        store = InMemoryVectorStore(embeddings)
    """

    def __init__(self, reco: Embeds | None = None, **options: Unpack[SourceOptions]) -> None:
        """Take an opened object, or options to open one at first use: see :class:`~.VectorSource`."""
        self.source = VectorSource(reco, **options)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        vector: list[float] = self.source.texts([text], "query")[0].tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts for an index."""
        vectors: list[list[float]] = self.source.texts(texts, "document").tolist()
        return vectors

    def embed_image(self, uris: Sequence[ImageInput]) -> list[list[float]]:
        """Embed images for an index; vector stores such as Chroma call this with paths."""
        vectors: list[list[float]] = self.source.images(uris, "document").tolist()
        return vectors

    def embed_image_query(self, uri: ImageInput) -> list[float]:
        """Embed an image as a query, to search by its vector; LangChain has no such method."""
        vector: list[float] = self.source.images([uri], "query")[0].tolist()
        return vector
