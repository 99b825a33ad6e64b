"""What engines and clients really sent, word for word, against the service: the right vectors, or a clear error.

``recorded/*.jsonl`` holds a request a line (November 2026; keys are ***, large images became small ones), and what it
expects: texts, images and parts that are one vector (null: a vector of zeros, for an empty title beside a picture),
whether refined; or a status and a part of the message. Elasticsearch's requests are made as its source makes them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from live_service import wait_until
from PIL import Image
from some_drawings import all_drawings

from reco_plugin import Pair, Reco

pytestmark = pytest.mark.xdist_group("recorded")  # one worker reads the drawings
RECORDED = {
    f"{file.stem}-{number}": json.loads(line)
    for file in sorted((Path(__file__).parent / "recorded").glob("*.jsonl"))
    for number, line in enumerate(file.read_text("utf-8").splitlines())
}
KEY = "the key of this service"
ALIASES = {"clip": "plain", "clip-reco": "refined", "clip-reco-query": "query", "voyage-clip-reco": "refined"}
Live = Callable[..., AbstractContextManager[tuple[str, uvicorn.Server]]]


@pytest.fixture(scope="module")
def stocked(model: Path) -> Iterator[Reco]:
    """A memory of drawings, with the fox that most of these requests ask for."""
    data = all_drawings()
    keys = {entity.key for entity in data.entities if entity.label == "fox"}
    keys |= {entity.key for entity in data.entities[::96]}
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(
            Pair(str(row), Image.fromarray(data.images[row]), item.caption, {"style": item.style})
            for row, item in enumerate(data.items)
            if item.entity in keys
        )
        yield reco


@pytest.fixture(scope="module")
def urls(stocked: Reco, live: Live) -> Iterator[dict[int, str]]:
    """Status -> where it is answered: a service for all, one with a key, and one whose queue is full."""
    with ExitStack() as opened:
        open_to_all, keyed, full = (
            opened.enter_context(live(stocked, aliases=ALIASES, **more))
            for more in ({}, {"api_keys": [KEY]}, {"threads": 1, "queue": 0})
        )
        go, executor = threading.Event(), full[1].config.app.state.shared.executor
        loop = full[1].servers[0].get_loop()
        busy = asyncio.run_coroutine_threadsafe(executor.run(lambda: go.wait(600)), loop)
        wait_until(lambda: executor.pending == 1)
        yield {0: open_to_all[0], 401: keyed[0], 429: full[0]}
        go.set()
        busy.result(60)


def send(url: str, recorded: dict[str, Any]) -> httpx.Response:
    """The request as it was sent."""
    headers = [(name, value.replace("***", "Bearer wrong")) for name, value in recorded["headers"]]
    return httpx.request(
        recorded["method"], url + recorded["path"], content=recorded["body"].encode(), headers=headers, timeout=60
    )


def vectors_of(answer: Any) -> Any:
    """The vectors of an answer in any dialect."""
    if isinstance(answer, list):
        return answer
    if "data" in answer:
        found = [row["embedding"] for row in answer["data"]]
        return [np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else one for one in found]
    if "embeddings" in answer:
        return answer["embeddings"]["float"] if isinstance(answer["embeddings"], dict) else answer["embeddings"]
    if "textVectors" in answer:
        return answer["textVectors"] + answer["imageVectors"]
    return [answer["embedding"]]


def expected_of(reco: Reco, wanted: Any, expects: dict[str, Any]) -> Any:
    """The vector of an input by the Python API."""
    options = {"refine": expects["refined"], **expects.get("options", {})}
    if wanted is None:
        return np.zeros(reco.manifest.dimension)
    if isinstance(wanted, list):
        mean = sum(expected_of(reco, one, expects) for one in wanted)
        return mean / np.linalg.norm(mean)
    if isinstance(wanted, dict):
        return reco.embed_images([base64.b64decode(wanted["image"])], **options)[0]
    return reco.embed_texts([wanted], **options)[0]


@pytest.mark.parametrize("name", RECORDED)
def test_it_gets_the_right_vectors_or_a_clear_error(name: str, urls: dict[int, str], stocked: Reco) -> None:
    recorded = RECORDED[name]
    expects = recorded["expects"]
    answer = send(urls.get(expects["status"], urls[0]), recorded)
    assert answer.status_code == expects["status"], answer.text
    if answer.status_code >= 400:
        assert expects.get("says", "") in " ".join(words(answer.json()))
        assert answer.status_code != 429 or answer.headers["x-amzn-errortype"] == "ThrottlingException"
    elif "inputs" in expects:
        found = vectors_of(answer.json())
        assert len(found) == len(expects["inputs"])
        for one, wanted in zip(found, expects["inputs"], strict=True):
            assert np.allclose(one, expected_of(stocked, wanted, expects), atol=1e-5)


def words(value: Any) -> Iterator[str]:
    """All strings of an error, which lie elsewhere in each dialect."""
    if isinstance(value, dict):
        for one in value.values():
            yield from words(one)
    elif isinstance(value, str):
        yield value


def test_refined_queries_of_each_engine_are_among_them_and_differ_from_plain_ones(stocked: Reco) -> None:
    """Else a service that refines nothing would pass."""
    moved = {
        name.rpartition("-")[0]
        for name, recorded in RECORDED.items()
        if recorded["expects"].get("refined")
        for text in recorded["expects"]["inputs"]
        if isinstance(text, str)
        and not np.allclose(
            stocked.embed_texts([text], refine=True), stocked.embed_texts([text], refine=False), atol=1e-3
        )
    }
    assert moved == {"elasticsearch", "jvm-clients", "opensearch", "vespa", "weaviate"}
