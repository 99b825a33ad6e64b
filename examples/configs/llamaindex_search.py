"""LlamaIndex: an index of pictures, whose nodes are plain CLIP vectors and whose text queries are refined.

reco serve --model my_model --memory ./memory
python examples/configs/llamaindex_search.py "a red fox" fox.png wolf.png

For nodes of text leave their embedding out, and use index="texts": queries that are refined for images find fewer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode

from reco_plugin.adapters.llamaindex import RecoEmbedding
from reco_plugin.client import Client


def search(url: str, text: str, pictures: Sequence[str], *, k: int = 3) -> list[NodeWithScore]:
    """Pictures nearest to a text, with their cosines. Any of LlamaIndex's vector stores takes the model likewise."""
    with Client(url) as reco:
        model = RecoEmbedding(reco, index="images")
        vectors = model.get_image_embedding_batch([*pictures])
        nodes = [TextNode(text=path, embedding=vector) for path, vector in zip(pictures, vectors, strict=True)]
        return VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=k).retrieve(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the pictures that are nearest to a text.")
    parser.add_argument("text")
    parser.add_argument("pictures", nargs="+", help="files")
    arguments = parser.parse_args()
    for hit in search("http://localhost:8080", arguments.text, arguments.pictures):
        print(f"{hit.score:.3f}  {hit.node.get_content()}")
