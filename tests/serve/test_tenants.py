"""Keys with a condition: no route or dialect shows, counts or changes what the other key's pairs are."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.fusion.refiner import used_pairs
from reco_plugin.learning import trainer
from reco_plugin.memory import in_scope
from reco_plugin.serve.auth import Keys
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.types import Records

KEYS = "".join(
    f'[{shop}]\nkey = "key-of-{shop}"\nrights = ["embed", "read", "write"]\nwhere = {{shop = "{shop}"}}\n'
    for shop in ("de", "fr")
)
SECRET = "sticker QX-48217-C secret"
"""Caption of the French shop. The German one has another code, to which a query's is corrected."""
CODE = {"caption": "sticker QX-48217-B"}
TEXT, QUERY = {"text": "a small red circle"}, {"text": "QX-48217-C"}
EYE = np.eye(128, dtype=np.float32)[0].tolist()
NEW = {"text_vector": EYE, "image_vector": EYE}
Call = tuple[str, str, str, dict[str, Any]]
"""Method, template of the path, path, and what is sent."""


def calls() -> Iterator[Call]:
    """Each route of the service, with requests that would find what is not theirs."""
    openai = {"json": {"input": [TEXT["text"], QUERY["text"]], "model": "clip-reco-query"}}
    voyage = {"json": {"inputs": [{"content": [{"type": "text", **QUERY}]}], "input_type": "query"}}
    cohere = {"json": {"texts": [QUERY["text"]], "input_type": "search_query"}}
    tei, titan = {"json": {"inputs": QUERY["text"]}}, {"json": {"inputText": QUERY["text"], "input_type": "query"}}
    immich = {"entries": json.dumps({"clip": {"textual": {"modelName": "clip-reco-query"}}}), **QUERY}
    posts: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("/v1/embeddings", "/openai/v1/embeddings", "/embeddings"), openai),
        "/openai/deployments/{deployment}/embeddings": openai,
        **dict.fromkeys(("/v1/multimodalembeddings", "/multimodalembeddings"), voyage),
        **dict.fromkeys(("/v2/embed", "/v1/embed"), cohere),
        **dict.fromkeys(("/embed", "/"), tei),
        **dict.fromkeys(("/titan", "/model/{model}/invoke"), titan),
        "/vectorize": {"json": {"texts": [QUERY["text"]]}},
        "/predict": {"data": immich},
        "/v1/refine": {"json": {"vectors": [EYE], "modality": "text", "explain": True}},
        "/page/compare": {"json": {"input": TEXT, "results": 100}},
        "/v1/memory/versions": {"json": {"name": "memory--v1"}},
        "/v1/match": {"json": {"input": [QUERY], "results": [[{"id": "only-fr"}]]}},
    }
    yield from (("POST", path, re.sub("{.*?}", "clip-reco-query", path), sent) for path, sent in posts.items())
    for where in ({}, {"where": {"shop": "fr"}}, {"where": {"shop": ["de", "fr"]}}, {"exclude": ["shared", "only-fr"]}):
        yield "POST", "/v1/explain", "/v1/explain", {"json": {"input": [TEXT, QUERY], "k": 90, **where}}
        for query in (TEXT, QUERY):
            yield "POST", "/v1/memory/search", "/v1/memory/search", {"json": {**query, "k": 90, **where}}
    number = {"json": {**TEXT, "where": {"caption": {"gte": 1}}}}
    yield "POST", "/v1/memory/search", "/v1/memory/search", number  # its error shows a caption
    pairs = "/v1/memory/pairs"
    ids: list[dict[str, Any]] = [{}, {"limit": 1, "vectors": "float"}, {"after": "only-fr"}]
    for sent in ({"id": ["shared", "only-fr"]}, *ids):
        yield "GET", pairs, pairs, {"params": sent}
    for shop in ({}, {"payload": {"shop": "fr"}}):
        yield "POST", pairs, pairs, {"json": {"pairs": [{"id": one, **NEW, **shop} for one in ("shared", "only-fr")]}}
        yield "GET", pairs, pairs, {"params": {"id": ["shared", "only-fr"], "vectors": "float"}}
    for name in ("only-fr", "shared"):
        judgment = {"judgments": [{"vector": EYE, "pair": name, "by": "secret"}]}
        yield "POST", "/v1/memory/feedback", "/v1/memory/feedback", {"json": judgment}
        yield "DELETE", pairs, pairs, {"params": {"id": [name, "nothing"]}}
    yield "GET", "/v1/memory/feedback", "/v1/memory/feedback", {}
    yield "DELETE", "/v1/memory/feedback", "/v1/memory/feedback", {"params": {"id": ["of-fr"]}}
    yield "GET", "/v1/memory", "/v1/memory", {"params": {"calibration": True}}
    alone = "/openapi.json /meta /.well-known/live /.well-known/ready /v1/models /models /v1/models/{model}"
    alone += " /models/{model} /v1/memory /v1/memory/versions /v1/health/live /livez /readyz /v1/health/ready /ping"
    alone += " /health /metrics /"
    for path in (*alone.split(), "/page/files/{name}", "/page/examples"):
        yield "GET", path, re.sub("{.*?}", "page.js" if "{name" in path else "clip-reco", path), {}


def records(shop: str, drawn: Records) -> Records:
    """The drawings of a shop: the French ones have other captions under ids that both have, and one of its own."""
    if shop == "de":
        payloads = [{**one, "shop": "de"} for one in drawn.payloads]
        return replace(drawn, payloads=[*payloads[:-1], {**payloads[-1], **CODE}])
    ids = [f"secret-{row}" for row in range(len(drawn) - 1)]
    return replace(drawn, ids=[*ids, "only-fr"], payloads=[{"caption": SECRET, "shop": "fr"}] * len(drawn))


def plain(value: Any) -> Any:
    """An answer without what is random in it."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in ("at", "created", "version", "location")}
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
        return "random"
    if isinstance(value, str) and value.startswith(("[0.", "[-0.", '["')):
        return plain(json.loads(value))  # immich's vector, or a header
    if isinstance(value, list):
        made = [plain(one) for one in value]
        return sorted(made) if made and isinstance(made[0], str) else made  # ids that tie
    return value


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are equal, but for the last digits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return math.isclose(one, other, abs_tol=1e-4) if isinstance(one, float) else bool(one == other)


@pytest.fixture(params=["exact", "edge"])
def answers(
    request: Any, model: Path, drawn_records: Records, served: Any, tmp_path: Path, monkeypatch: Any
) -> Callable[..., Any]:
    """All answers to the German key, and what the memory then holds of the French shop, which may be there or not."""
    file = tmp_path / "keys.toml"
    file.write_text(KEYS)
    learned: dict[str, Any] = {}
    monkeypatch.setattr(trainer, "CHANGED", math.inf)  # what is learned is of all pairs

    def ask(*, fr: bool) -> tuple[dict[int, Any], list[Call], Any, Any]:
        place = ":memory:" if request.param == "exact" else tmp_path / f"memory-{fr}"
        with Reco.open(model, memory=place) as reco:
            reco.memory.add_records([records("de", drawn_records)])
            learned.setdefault("calibration", reco.memory.store.header.calibration)
            if fr:
                reco.memory.store.upsert(records("fr", drawn_records))
                with in_scope((("shop", "fr"),)):
                    one = replace(drawn_records.take([0]), ids=["shared"], payloads=[{"caption": SECRET}])
                    reco.memory.store.upsert(one)
                    reco.memory.reject("a red circle", "only-fr", by="secret")
            before = kept(reco)
            with served(reco, page=True, keys_file=file, admin_key=None) as client:
                client.headers["authorization"] = "Bearer key-of-de"
                reco.memory.store.set_calibration(learned["calibration"])
                made: dict[int, Any] = {}
                for number, (method, _, path, sent) in enumerate(called := list(calls())):
                    answer = client.request(method, path, **sent)
                    told = {name: plain(one) for name, one in answer.headers.items() if name.startswith("x-reco")}
                    is_json = answer.content and "json" in answer.headers.get("content-type", "")
                    made[number] = (
                        answer.status_code,
                        told,
                        plain(answer.json()) if is_json else answer.text,
                    )
                routes = {(method, path) for method, path in paths(client.app.routes)}
            return made, called, (before, kept(reco)), routes

    return ask


def kept(reco: Reco) -> Any:
    """The French shop's pairs and feedback, as the memory holds them."""
    with in_scope((("shop", "fr"),)):
        return sorted(reco.memory.store.payloads(), key=str), reco.memory.opinions


def paths(routes: Any) -> Iterator[tuple[str, str]]:
    """Method and template of each route."""
    for route in routes:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from paths(inner.routes)
        else:
            yield from ((method, route.path_format) for method in route.methods - {"HEAD"})


def test_a_key_finds_and_changes_nothing_of_another_one(answers: Any) -> None:
    shared, called, (before, after), routes = answers(fr=True)
    alone, *_ = answers(fr=False)
    assert routes == {(method, path) for method, path, *_ in called}, "each route needs a call here"
    for number, (method, path, _, sent) in enumerate(called):
        assert alike(shared[number], alone[number]), (method, path, sent, shared[number], alone[number])
        assert "secret" not in json.dumps(shared[number]).replace('"by": "secret"', ""), (method, path)
        assert shared[number][0] != 500
    assert before == after
    assert len(before[0]) == 25
    by_path = {path: shared[number][0] for number, (_, path, *_) in enumerate(called)}
    assert (by_path["/v1/memory/versions"], by_path["/metrics"]) == (403, 403)
    found = [answer for answer in shared.values() if "words" in str(answer) and CODE["caption"] in str(answer)]
    assert found, "a code is corrected to the shop's own"


def test_ids_are_each_keys_own_and_the_whole_memory_sees_all(filled: Reco, drawn_records: Records) -> None:
    memory, one = filled.memory, drawn_records.take([0])
    for shop in ("de", "fr"):
        with in_scope((("shop", shop),)):
            memory.add_records([replace(one, payloads=[{"caption": f"of {shop}"}])])
            assert (len(memory), memory.get(one.ids).payloads[0]["caption"]) == (1, f"of {shop}")
    assert len(memory) == 26
    assert sorted(str(payload.get("shop")) for _, payload in memory.store.payloads())[-3:] == ["None", "de", "fr"]
    with in_scope((("shop", "de"),)):
        with pytest.raises(InputError, match="shop is 'fr', and this key writes only shop = 'de'"):
            memory.add_records([replace(one, payloads=[{"shop": "fr"}])])
        assert (memory.remove(one.ids), memory.remove(one.ids), len(memory)) == (1, 0, 0)
    with in_scope((("colour", "red"),)):  # pairs of the whole memory are found under their own ids
        assert len(memory) == sum(payload["colour"] == "red" for payload in drawn_records.payloads)
        name = memory.search("a red circle", k=1).ids[0][0]
        assert name in drawn_records.ids
        assert memory.remove([name, "small-blue-circle"]) == 1


def test_searches_of_several_scopes_are_not_merged(filled: Reco) -> None:
    def used(colour: str) -> set[str]:
        with in_scope((("colour", colour),)):
            refined = [filled.embed([TEXT["text"]], modality="text", refine=True, explain=True) for _ in range(20)]
        return {str(one.payload["colour"]) for each in refined for one in used_pairs(each, 0)}

    colours = ["red", "blue", "green"] * 4
    with ThreadPoolExecutor(len(colours)) as pool:
        assert list(pool.map(used, colours)) == [{colour} for colour in colours]


@pytest.mark.parametrize("where", ["{}", "{shop = 1}", "{_reco_id = 'x'}", "{shop = 'de'}\nextra = 1"])
def test_a_condition_that_cannot_be_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "keys.toml").write_text(f'[a]\nkey = "12345678"\nrights = ["metrics"]\nwhere = {where}')
    with pytest.raises(ConfigError, match=r"where|extra|filter"):
        Keys(ServeSettings(keys_file=tmp_path / "keys.toml"))
