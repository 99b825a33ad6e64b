"""LangChain: a vector store of pictures, whose vectors are plain CLIP and whose text queries are refined.

reco serve --model my_model --memory ./memory
python examples/configs/langchain_search.py "a red fox" fox.png wolf.png

For a store of captions use RecoEmbeddings itself, with index="texts": queries refined for images find fewer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from reco_plugin.adapters.langchain import RecoEmbeddings
from reco_plugin.client import Client


class PictureEmbeddings(RecoEmbeddings):
    """For a store whose documents are the paths of pictures."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed the pictures."""
        return self.embed_image(texts)


def search(url: str, text: str, pictures: Sequence[str], *, k: int = 3) -> list[tuple[Document, float]]:
    """Pictures nearest to a text, with their cosines. Any vector store takes the embeddings in the same way."""
    with Client(url) as reco:
        store = InMemoryVectorStore(PictureEmbeddings(reco, index="images"))
        store.add_texts([*pictures])
        return store.similarity_search_with_score(text, k=k)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the pictures that are nearest to a text.")
    parser.add_argument("text")
    parser.add_argument("pictures", nargs="+", help="files")
    arguments = parser.parse_args()
    for document, score in search("http://localhost:8080", arguments.text, arguments.pictures):
        print(f"{score:.3f}  {document.page_content}")
