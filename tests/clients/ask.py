"""One official client as its users call it: index texts, ask texts. Runs in .venv-clients, which has no reco_plugin.

    .venv-clients/bin/python tests/clients/ask.py CLIENT URL KEY MODEL < {"documents": [...], "queries": [...]}

Prints the client's version and its vectors as JSON. Nothing is set but where the service is, the key and the model.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

Vectors = list[list[float]]


class Setup(NamedTuple):
    """Where the service is, and what its model is called."""

    url: str
    key: str
    model: str


Ask = Callable[[Setup, list[str], list[str]], tuple[Any, Any]]


def openai_(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{at.url}/v1", api_key=at.key)

    def embed(texts: list[str]) -> Vectors:
        return [one.embedding for one in client.embeddings.create(model=at.model, input=texts).data]

    return embed(documents), [embed([text])[0] for text in queries]


def azure(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import openai

    client = openai.AzureOpenAI(azure_endpoint=at.url, api_key=at.key, api_version="2024-10-21")

    def embed(texts: list[str]) -> Vectors:
        return [one.embedding for one in client.embeddings.create(model=at.model, input=texts).data]

    return embed(documents), [embed([text])[0] for text in queries]


def cohere_v1(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import cohere

    client = cohere.Client(api_key=at.key, base_url=at.url)

    def embed(texts: list[str], role: str) -> Any:
        return client.embed(texts=texts, model=at.model, input_type=role).embeddings

    return embed(documents, "search_document"), [embed([text], "search_query")[0] for text in queries]


def cohere_v2(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import cohere

    client = cohere.ClientV2(api_key=at.key, base_url=at.url)

    def embed(texts: list[str], role: str) -> Any:
        made = client.embed(texts=texts, model=at.model, input_type=role, embedding_types=["float"])
        return made.embeddings.float_

    return embed(documents, "search_document"), [embed([text], "search_query")[0] for text in queries]


def voyageai_(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import voyageai

    client = voyageai.Client(api_key=at.key, base_url=f"{at.url}/v1")

    def embed(texts: list[str], role: str) -> Any:
        return client.multimodal_embed([[text] for text in texts], model=at.model, input_type=role).embeddings

    return embed(documents, "document"), [embed([text], "query")[0] for text in queries]


def boto3_(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import boto3

    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")  # it signs, which nobody here looks at
    client = boto3.client("bedrock-runtime", endpoint_url=at.url, region_name="eu-central-1")
    client.meta.events.register("before-sign", lambda request, **_: request.headers.add_header("x-api-key", at.key))

    def embed(text: str) -> Any:
        answer = client.invoke_model(modelId=at.model, body=json.dumps({"inputText": text}))
        return json.loads(answer["body"].read())["embedding"]

    return [embed(text) for text in documents], [embed(text) for text in queries]


def chromadb_(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import chromadb
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    os.environ["CHROMA_OPENAI_API_KEY"] = at.key
    function = OpenAIEmbeddingFunction(api_key=at.key, api_base=f"{at.url}/v1", model_name=at.model)
    collection = chromadb.EphemeralClient().create_collection("texts", embedding_function=function)
    collection.add(ids=[str(row) for row in range(len(documents))], documents=documents)
    stored = collection.get(include=["embeddings"])
    by_id = dict(zip(stored["ids"], stored["embeddings"], strict=True))
    assert len(collection.query(query_texts=queries, n_results=1)["ids"]) == len(queries)
    return [by_id[str(row)] for row in range(len(documents))], [function.embed_query([text])[0] for text in queries]


def lancedb_(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    import lancedb
    import openai
    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel, Vector

    os.environ["OPENAI_API_KEY"] = at.key
    name, base = LANCEDB[at.model], f"{at.url}/v1"
    dim = openai.OpenAI(base_url=base).models.retrieve(name).dimension
    function = get_registry().get("openai").create(name=name, dim=dim, base_url=base)

    class Row(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    table = lancedb.connect(tempfile.mkdtemp()).create_table("texts", schema=Row)
    table.add([{"text": text} for text in documents])
    stored = {row["text"]: row["vector"] for row in table.to_arrow().to_pylist()}
    asked = [function.compute_query_embeddings(text)[0] for text in queries]
    assert all(table.search(vector).limit(1).to_list() for vector in asked)
    return [stored[text] for text in documents], asked


def mistral(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from mistralai.client import Mistral

    client = Mistral(api_key=at.key, server_url=at.url)
    assert at.model in [one.id for one in client.models.list().data]

    def embed(texts: list[str]) -> Any:
        made = client.embeddings.create(model=at.model, inputs=texts, metadata={"job": "index"})
        return [one.embedding for one in made.data]

    return embed(documents), [embed([text])[0] for text in queries]


def langchain_nvidia(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    known = {"model": at.model, "base_url": f"{at.url}/v1", "api_key": at.key}
    try:
        NVIDIAEmbeddings(**known).embed_documents([*documents, "a long caption " * 100])
    except Exception as error:  # of the client's own kind
        assert f"input[{len(documents)}]" in str(error) and '"END"' in str(error), error
    made = NVIDIAEmbeddings(**known, truncate="END")
    assert len(made.embed_documents(["a long caption " * 100])) == 1
    return made.embed_documents(documents), [made.embed_query(text) for text in queries]


def litellm_of(prefix: str, path: str, **roles: dict[str, str]) -> Ask:
    def ask(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
        import litellm

        def embed(texts: list[str], role: str) -> Any:
            base = f"{at.url}{path}"
            extra = roles.get(role, {})
            made = litellm.embedding(model=f"{prefix}/{at.model}", input=texts, api_base=base, api_key=at.key, **extra)
            return [one["embedding"] for one in made.data]

        return embed(documents, "document"), [embed([text], "query")[0] for text in queries]

    return ask


def langchain_openai(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from langchain_openai import OpenAIEmbeddings

    made = OpenAIEmbeddings(model=at.model, base_url=f"{at.url}/v1", api_key=at.key, check_embedding_ctx_length=False)
    return made.embed_documents(documents), [made.embed_query(text) for text in queries]


def langchain_cohere(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from langchain_cohere import CohereEmbeddings

    made = CohereEmbeddings(model=at.model, base_url=at.url, cohere_api_key=at.key)
    return made.embed_documents(documents), [made.embed_query(text) for text in queries]


def llamaindex(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from llama_index.embeddings.openai import OpenAIEmbedding

    made = OpenAIEmbedding(model_name=at.model, api_base=f"{at.url}/v1", api_key=at.key)
    return made.get_text_embedding_batch(documents), [made.get_query_embedding(text) for text in queries]


def haystack(at: Setup, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret

    known = {"api_base_url": f"{at.url}/v1", "api_key": Secret.from_token(at.key), "model": at.model}
    found = OpenAIDocumentEmbedder(**known, progress_bar=False).run([Document(content=text) for text in documents])
    asks = OpenAITextEmbedder(**known)
    return [one.embedding for one in found["documents"]], [asks.run(text)["embedding"] for text in queries]


LANCEDB = {"clip": "text-embedding-3-small", "clip-reco-query": "text-embedding-3-large"}
"""Names that LanceDB knows; the service has them as further aliases."""
ROLES = {"query": {"input_type": "query"}, "document": {"input_type": "document"}}
CLIENTS: dict[str, tuple[str, Ask]] = {  # name -> its package, how it is called
    "openai": ("openai", openai_),
    "openai.AzureOpenAI": ("openai", azure),
    "cohere.Client": ("cohere", cohere_v1),
    "cohere.ClientV2": ("cohere", cohere_v2),
    "voyageai": ("voyageai", voyageai_),
    "boto3": ("boto3", boto3_),
    "chromadb": ("chromadb", chromadb_),
    "lancedb": ("lancedb", lancedb_),
    "litellm openai/": ("litellm", litellm_of("openai", "/v1")),
    "litellm voyage/": ("litellm", litellm_of("voyage", "/v1/embeddings", **ROLES)),
    "litellm jina_ai/": ("litellm", litellm_of("jina_ai", "/v1/embeddings")),
    "langchain-openai": ("langchain-openai", langchain_openai),
    "langchain-cohere": ("langchain-cohere", langchain_cohere),
    "llama-index": ("llama-index-embeddings-openai", llamaindex),
    "haystack": ("haystack-ai", haystack),
    "mistralai": ("mistralai", mistral),
    "langchain-nvidia": ("langchain-nvidia-ai-endpoints", langchain_nvidia),
}


def main() -> None:
    """See the module."""
    name, url, key, model = sys.argv[1:]
    package, ask = CLIENTS[name]
    texts = json.load(sys.stdin)
    documents, queries = ask(Setup(url, key, model), texts["documents"], texts["queries"])
    vectors = {
        side: [list(map(float, one)) for one in of] for side, of in (("documents", documents), ("queries", queries))
    }
    print(json.dumps({"version": importlib.metadata.version(package), **vectors}))


if __name__ == "__main__":
    main()
