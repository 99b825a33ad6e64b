"""LangChain: a vector store whose documents are plain CLIP vectors and whose queries are refined.

reco serve --model my_model --memory ./memory
python examples/configs/langchain_search.py
"""

from __future__ import annotations

from collections.abc import Mapping

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from reco_plugin.adapters.langchain import RecoEmbeddings
from reco_plugin.client import Client

CAPTIONS = {"1": "a small red circle", "2": "a large blue square", "3": "a large green triangle"}


def search(url: str, text: str, captions: Mapping[str, str] = CAPTIONS, *, k: int = 3) -> list[tuple[Document, float]]:
    """Documents nearest to a text, with their cosines. Any vector store takes the embeddings in the same way."""
    with Client(url) as reco:
        store = InMemoryVectorStore(RecoEmbeddings(reco))
        store.add_texts([*captions.values()], ids=[*captions])
        return store.similarity_search_with_score(text, k=k)


if __name__ == "__main__":
    for document, score in search("http://localhost:8080", "a blue box"):
        print(f"{score:.3f}  {document.page_content}")
