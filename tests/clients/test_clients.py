"""The newest official clients, in an environment of their own (`make clients`), against the real service.

What they are seen to do is the table of docs/serve.md: `make clients` writes it anew, else it is compared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from live_service import serve_on_a_free_port

from reco_plugin import Pair, Reco
from reco_plugin.serve.service_settings import ServeSettings

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
NPM = ROOT / ".venv-clients" / "npm"
PAGE = ROOT / "docs" / "serve.md"
BEGIN, END = "<!-- seen: make clients -->", "<!-- end -->"
TEXTS = {"documents": ["a small red circle", "a large green square", "a fox"], "queries": ["a red circle", "a dog"]}
KEY = "any"
pytestmark = [
    pytest.mark.fetched,
    pytest.mark.skipif(not PYTHON.exists(), reason="the official clients are not installed: make clients"),
]


class Client(NamedTuple):
    """How a client is told where the service is, and whether it says which side a text is."""

    set_to: str
    sends_role: bool


CLIENTS = {
    "openai": Client("`base_url=URL/v1`", False),
    "openai.AzureOpenAI": Client("`azure_endpoint=URL`", False),
    "cohere.Client": Client("`base_url=URL`", True),
    "cohere.ClientV2": Client("`base_url=URL`", True),
    "voyageai": Client("`base_url=URL/v1`", True),
    "boto3": Client("`endpoint_url=URL`; the key as header `x-api-key`", False),
    "chromadb": Client("`api_base=URL/v1`", False),
    "lancedb": Client("`name=` an alias that it knows (`text-embedding-3-small`), `dim=`, `base_url=URL/v1`", False),
    "litellm openai/": Client("`api_base=URL/v1`", False),
    "litellm voyage/": Client("`api_base=URL/v1/embeddings`, `input_type=`", True),
    "litellm jina_ai/": Client("`api_base=URL/v1/embeddings`", False),
    "langchain-openai": Client("`base_url=URL/v1`, `check_embedding_ctx_length=False`", False),
    "langchain-cohere": Client("`base_url=URL`", True),
    "llama-index": Client("`model_name=`, `api_base=URL/v1`", False),
    "haystack": Client("`api_base_url=URL/v1`", False),
    "mistralai": Client("`server_url=URL`", False),
    "langchain-nvidia": Client('`base_url=URL/v1`, `truncate="END"`', True),
    "Vercel AI": Client("`createOpenAI({baseURL: 'URL/v1'})`", False),
    "@ai-sdk/cohere": Client(
        "`createCohere({baseURL: 'URL/v2'})`; for an index `providerOptions: {cohere: {inputType: 'search_document'}}`",
        True,
    ),
    "AWS SDK for JavaScript": Client("`endpoint`, `NodeHttpHandler` (no HTTP/2); the key as header `x-api-key`", False),
}
OF_NPM = ("Vercel AI", "@ai-sdk/cohere", "AWS SDK for JavaScript")
ROWS: dict[str, str] = {}


@pytest.fixture(scope="module")
def filled(model: Path, drawings: list[Pair]) -> Iterator[Reco]:
    with Reco.open(model, memory=":memory:", fuser="paper") as opened:  # moves by 24 pairs
        opened.memory.add(drawings)
        yield opened


@pytest.fixture(scope="module")
def url(filled: Reco) -> Iterator[str]:
    """The service on a free port."""
    known_to_lancedb = {"text-embedding-3-small": "plain", "text-embedding-3-large": "query"}
    aliases = {**ServeSettings().aliases, **known_to_lancedb}
    with serve_on_a_free_port(filled, api_keys=[KEY], aliases=aliases) as (found, _):
        yield found


def ask(client: str, url: str, name: str, home: Path) -> dict[str, Any]:
    """What the client got for both sides under a name of the model."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "0"}
    command = [PYTHON, Path(__file__).with_name("ask.py")]
    if client in OF_NPM:
        if not (NPM / "node_modules").exists():
            pytest.skip("npm is not installed, or could not fetch the clients")
        command = ["node", Path(__file__).with_name("ask.mjs"), NPM]
    done = subprocess.run(
        [*command, client, url, KEY, name],
        input=json.dumps(TEXTS),
        env={"PATH": os.environ["PATH"], "HOME": str(home), **quiet},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("client", CLIENTS)
def test_an_index_is_plain_and_queries_are_refined(client: str, url: str, filled: Reco, tmp_path: Path) -> None:
    plain = {side: filled.embed_texts(texts, refine=False) for side, texts in TEXTS.items()}
    refined = filled.embed_texts(TEXTS["queries"])
    assert np.abs(refined - plain["queries"]).max() > 0.05, "the memory moves nothing: the test would show nothing"
    kind = CLIENTS[client]
    seen = ask(client, url, "clip-reco" if kind.sends_role else "clip", tmp_path)
    assert np.allclose(seen["documents"], plain["documents"], atol=1e-5), "an index must stay plain"
    assert np.allclose(seen["queries"], refined if kind.sends_role else plain["queries"], atol=1e-5)
    if not kind.sends_role:
        queries = ask(client, url, "clip-reco-query", tmp_path)["queries"]
        assert np.allclose(queries, refined, atol=1e-5)
    ROWS[client] = f"| {client} | {seen['version']} | {kind.set_to} | {'yes' if kind.sends_role else 'no'} |"


def test_the_page_shows_what_was_seen() -> None:
    if ROWS.keys() != CLIENTS.keys():
        pytest.skip("not all clients were asked")
    head = ["| client | version | what to set | says the side |", "|---|---|---|---|"]
    table = "\n".join([BEGIN, "", *head, *(ROWS[client] for client in CLIENTS), "", END])
    page = PAGE.read_text("utf-8")
    if os.environ.get("RENEW"):
        PAGE.write_text(re.sub(f"{BEGIN}.*{END}", table, page, flags=re.DOTALL), "utf-8")
    else:
        assert table in page, "make clients writes it anew"
