"""The OpenAPI document: checked in, without FastAPI's own error body, and kept to by the service."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.openapi import document
from reco_plugin import Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.reference import render
from reco_plugin.serve.settings import ServeSettings

FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
ADMIN = {"authorization": "Bearer the-admin-key-4711"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_document_is_the_one_that_is_checked_in(filled):
    app = create_app(ServeSettings(page=False), filled)
    assert document(app) == FILE.read_text("utf-8"), "python -m benchmarks.openapi > docs/openapi.json"


def test_it_does_not_depend_on_settings(filled):
    other = ServeSettings(page=True, aliases={"x": "plain"}, api_keys=["k"], admin_key="a", max_k=3, cache_entries=9)
    assert document(create_app(other, filled)) == FILE.read_text("utf-8")


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = json.loads(FILE.read_text("utf-8"))["paths"]
    return [(path, method, told) for path, methods in paths.items() for method, told in methods.items()]


def test_fastapis_own_error_body_is_nowhere():
    assert "HTTPValidationError" not in FILE.read_text("utf-8")


def test_a_caution_is_a_word_or_a_share():
    schemas = json.loads(FILE.read_text("utf-8"))["components"]["schemas"].values()
    found = [schema["properties"]["caution"] for schema in schemas if "caution" in schema.get("properties", {})]
    asked = [one["anyOf"] for one in found if {"type": "null"} in one["anyOf"]]
    words = {"type": "string", "enum": ["cautious", "balanced", "bold"]}
    assert len(asked) == 5
    assert all(one == [words, {"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}] for one in asked)


def test_every_operation_has_a_name_of_its_own_and_a_summary():
    names = [told["operationId"] for _, _, told in operations()]
    assert len(set(names)) == len(names) >= 10
    assert all(told["summary"] and told["description"] for _, _, told in operations())


@pytest.fixture(scope="module")
def api(model: Path, drawings: Any, live: Any) -> Any:
    """What the document says, of a service that runs."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(drawings)
        with live(reco) as (url, _):
            yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in operations()])
def test_whatever_is_sent_the_answer_is_a_documented_one(api: Any, path: str, method: str) -> None:
    @settings(max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, headers=ADMIN)

    ask()


class Page(HTMLParser):
    """What a page names, links and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        named = dict(attrs)
        assert not {"src", "style", "onclick"} & set(named), tag
        assert tag not in ("script", "link", "img", "iframe")
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if "href" in named else []
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_document_is_a_page_too_which_needs_nothing_else(filled, served):
    with served(filled, api_keys=["k"]) as client:
        for path in ("/docs", "/docs/", "/plain/docs"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "/docs" in client.get("/nowhere").json()["error"]["message"]
    page = Page()
    page.feed(answer.text)
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links if link != "openapi.json"} <= set(page.ids)
    document = json.loads(FILE.read_text("utf-8"))
    assert {told["operationId"] for _, _, told in operations()} <= set(page.ids)
    for name, schema in document["components"]["schemas"].items():
        assert name in page.ids
        assert all(field in page.text for field in schema.get("properties", {}))
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    assert (
        base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in answer.headers["content-security-policy"]
    )


def test_what_a_document_says_is_text_and_not_html():
    said = {"get": {"operationId": "x", "description": "<b>``/a&b``</b>", "responses": {}, "tags": ["<i>"]}}
    page = render({"info": {"title": "<t>", "version": "1"}, "paths": {"/<p>": said}})
    assert "&lt;b&gt;<code>/a&amp;b</code>&lt;/b&gt;" in page
    assert "<code>/&lt;p&gt;</code>" in page
    assert not any(tag in page for tag in ("<b>", "<i>", "<t>"))
