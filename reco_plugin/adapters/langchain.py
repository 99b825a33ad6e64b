"""LangChain: ``RecoEmbeddings`` for any vector store; queries are refined for what the index holds.

``PlainScoreRetriever`` searches a store with them, and takes and gives scores on the scale of plain CLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

from pydantic import ConfigDict, Field, model_validator

from ..errors import ConfigError, importing
from ..types import ImageInput
from .source import Embeds, SourceOptions, VectorSource, as_lists, check_cosines, check_known, check_scale

with importing("langchain-core", "langchain", "this adapter"):
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever

_SEARCHES = ("similarity_search_with_score_by_vector", "similarity_search_by_vector_with_relevance_scores")
"""What stores call a search by a vector that tells scores; the latter is Chroma's."""


class RecoEmbeddings(Embeddings):
    """Text and image embeddings of one space.

    The ``a…`` methods are LangChain's own: they run these in a thread.

    Example::

        embeddings = RecoEmbeddings(settings={"model": "triton_models", "memory": "./memory"}, index="images")
        store = InMemoryVectorStore(embeddings)
    """

    def __init__(self, reco: Embeds | None = None, **options: Unpack[SourceOptions]) -> None:
        """Take an opened object, or say what to open at first use: see :class:`~.source.VectorSource`."""
        self.source = VectorSource(reco, **options)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return as_lists(self.source.texts([text], "query"))[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts for an index."""
        return as_lists(self.source.texts(texts, "document"))

    def embed_image(self, uris: Sequence[ImageInput]) -> list[list[float]]:
        """Embed images for an index; vector stores such as Chroma call this with paths."""
        return as_lists(self.source.images(uris, "document"))

    def embed_image_query(self, uri: ImageInput) -> list[float]:
        """Embed an image as a query; LangChain has no such method, so search by the vector."""
        return as_lists(self.source.images([uri], "query"))[0]


class PlainScoreRetriever(BaseRetriever):
    """Searches a store by refined queries; scores and threshold are on the scale of plain CLIP.

    A score is in the document's metadata, as ``score``. The order is the store's.

    Example::

        PlainScoreRetriever(store=store, embeddings=embeddings, k=5, score_threshold=0.25).invoke("a red fox")
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: Any = Field(description="A vector store with similarity_search_with_score_by_vector")
    embeddings: RecoEmbeddings
    k: int = Field(default=4, ge=1, description="Results before the threshold")
    score_threshold: float | None = Field(default=None, description="Cosine of plain CLIP that a result must have")
    cosine: Callable[[float], float] | None = Field(
        default=None, description="Makes a cosine of the store's score, as in lambda distance: 1 - distance"
    )
    search_kwargs: dict[str, Any] = Field(default_factory=dict, description="For the store, as in a filter")

    @model_validator(mode="before")
    @classmethod
    def _every_field_is_known(cls, fields: dict[str, Any]) -> dict[str, Any]:
        check_known(fields, cls.model_fields)
        return fields

    @model_validator(mode="after")
    def _store_tells_scores(self) -> Self:
        if not any(hasattr(self.store, name) for name in _SEARCHES):
            raise ConfigError(
                f"{type(self.store).__name__} has no {_SEARCHES[0]}: search it by a vector yourself, with "
                'asked = embeddings.source.ask([text], "text"), asked.vectors[0] and asked.plain_scores([scores])'
            )
        return self

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        asked = self.embeddings.source.ask([query], "text")
        check_scale(asked)
        search = next(getattr(self.store, name) for name in _SEARCHES if hasattr(self.store, name))
        hits = search(as_lists(asked.vectors)[0], k=self.k, **self.search_kwargs)
        cosines = [score if self.cosine is None else self.cosine(score) for _, score in hits]
        check_cosines(cosines, type(self.store).__name__, made=self.cosine is not None)
        scores: list[float] = asked.plain_scores([cosines])[0].tolist()
        least = self.score_threshold
        return [
            document.model_copy(update={"metadata": {**document.metadata, "score": score}})
            for (document, _), score in zip(hits, scores, strict=True)
            if least is None or score >= least
        ]
