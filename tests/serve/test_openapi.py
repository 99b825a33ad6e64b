"""The OpenAPI document: checked in, and kept to by the service."""

from __future__ import annotations

import json
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
from reco_plugin.serve.service_settings import ServeSettings

pytestmark = pytest.mark.slow

FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
ADMIN = {"authorization": "Bearer the-admin-key-4711"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_document_is_the_one_that_is_checked_in(filled):
    app = create_app(ServeSettings(page=False), filled)
    assert document(app) == FILE.read_text("utf-8"), "python -m benchmarks.openapi > docs/openapi.json"


def test_it_does_not_depend_on_settings(filled):
    other = ServeSettings(page=True, aliases={"x": "plain"}, api_keys=["k"], admin_key="a")
    assert document(create_app(other, filled)) == FILE.read_text("utf-8")


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = json.loads(FILE.read_text("utf-8"))["paths"]
    return [(path, method, operation) for path, methods in paths.items() for method, operation in methods.items()]


def test_every_operation_has_a_name_of_its_own_and_a_summary():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names) >= 10
    assert all(operation["summary"] and operation["description"] for _, _, operation in operations())


@pytest.fixture(scope="module")
def api(model: Path, drawings: Any, live: Any) -> Any:
    """What the document says, of a service that runs."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(drawings)
        with live(reco, admin_key="the-admin-key-4711") as (url, _):
            yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in operations()])
def test_whatever_is_sent_the_answer_is_a_documented_one(api: Any, path: str, method: str) -> None:
    @settings(max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, headers=ADMIN)

    ask()
