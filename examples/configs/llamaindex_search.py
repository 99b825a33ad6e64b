"""LlamaIndex: an index whose nodes are plain CLIP vectors and whose queries are refined.

reco serve --model my_model --memory ./memory
python examples/configs/llamaindex_search.py
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode

from reco_plugin.adapters.llamaindex import RecoEmbedding
from reco_plugin.client import Client

CAPTIONS = {"1": "a small red circle", "2": "a large blue square", "3": "a large green triangle"}


def search(url: str, text: str, captions: Mapping[str, str] = CAPTIONS, *, k: int = 3) -> list[NodeWithScore]:
    """Nodes nearest to a text, with their cosines. Any vector store of LlamaIndex takes the model in the same way."""
    nodes = [TextNode(id_=key, text=caption) for key, caption in captions.items()]
    with Client(url) as reco:
        index = VectorStoreIndex(nodes, embed_model=RecoEmbedding(reco))
        return index.as_retriever(similarity_top_k=k).retrieve(text)


if __name__ == "__main__":
    for found in search("http://localhost:8080", "a blue box"):
        print(f"{found.score:.3f}  {found.node.get_content()}")
