"""``/docs``: the OpenAPI document as a page, in HTML alone: no script, and nothing from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Response

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --get: #1769aa; --post: #2e7d32; --delete: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
code, pre { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .75rem; border-radius: .4rem; overflow-x: auto; overflow-wrap: normal; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); text-transform: capitalize; }
h3 { margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
nav ul { columns: 18rem; padding: 0; list-style: none; }
nav li { break-inside: avoid; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; }
th code { white-space: nowrap; }
.method { font: 700 .8em ui-monospace, monospace; }
.get { color: var(--get); } .post { color: var(--post); } .delete { color: var(--delete); }
@media (prefers-color-scheme: dark) { :root { --get: #7cc4ff; --post: #8fd694; --delete: #ff9a93; } }
.soft { opacity: .75; }
"""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_JSON = "application/json"
_SAMPLES = {"integer": 10, "number": 0.5, "boolean": True, "object": {}, "null": None}
_WORDS = {"image": "data:image/jpeg;base64,…", "images": "data:image/jpeg;base64,…", "id": "fox-1"}
"""What fields of these names hold in an example."""


def router(app: FastAPI) -> APIRouter:
    """``GET /docs``, open to all as the document itself."""
    routes = APIRouter(include_in_schema=False)
    page = cache(lambda: render(app.openapi()).encode())

    @routes.get("/docs")
    async def reference() -> Response:
        # the first time, the document takes a second to make
        return Response(await asyncio.to_thread(page), media_type="text/html", headers=_HEADERS)

    return routes


def render(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as one page: operations by tag, then all objects that they take and return."""
    operations: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            operations.setdefault(told.get("tags", ["other"])[0], []).append((path, method, told))
    info, schemas = document["info"], document.get("components", {}).get("schemas", {})
    parts = [
        f"<h1>{escape(info['title'])} <span class=soft>{escape(info['version'])}</span></h1>",
        *(f"<p>{_prose(part)}</p>" for part in info.get("description", "").split("\n\n")),
        "<p>The same for programs: <a href=openapi.json>openapi.json</a>.</p><nav>",
    ]
    for tag, members in operations.items():
        links = (
            f"<li><a href='#{escape(told['operationId'])}'>{_title(path, how)}</a></li>" for path, how, told in members
        )
        parts.append(f"<h4>{escape(tag)}</h4><ul>{''.join(links)}</ul>")
    parts.append("</nav>")
    for tag, members in operations.items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        for path, method, told in members:
            parts.extend(_operation(path, method, told, schemas))
    parts.append("<h2 id=objects>objects</h2>")
    for name, schema in schemas.items():
        parts.append(f"<h3 id='{escape(name)}'><code>{escape(name)}</code></h3>")
        parts.append(f"<p>{_prose(schema.get('description'))}</p>{_fields(schema)}")
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(info['title'])}: the HTTP interface</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _operation(path: str, method: str, told: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h3 id='{escape(told['operationId'])}'>{_title(path, method)}</h3>"
    yield f"<p>{_prose(told.get('description'))}</p>"
    if parameters := told.get("parameters"):
        rows = [_row(one["name"], {**one["schema"], **one}, required=one.get("required", False)) for one in parameters]
        yield f"<p>Parameters:</p>{_table(rows)}"
    for media, body in told.get("requestBody", {}).get("content", {}).items():
        schema = body["schema"]
        yield f"<p>Body, <code>{escape(media)}</code>: {_kind(schema)}</p>{_fields(_resolved(schema, schemas))}"
        if media == _JSON:
            yield f"<pre>{escape(_curl(path, method, told, _example(schema, schemas)))}</pre>"
    failures = []
    for status, answer in told.get("responses", {}).items():
        content = answer.get("content", {})
        kinds = " or ".join(_kind(one["schema"]) for one in content.values() if one.get("schema"))
        if status.startswith("2"):
            yield f"<p>Answer {escape(status)}: {kinds or escape(', '.join(content)) or 'empty'}</p>"
        else:
            failures.append(
                f"<tr><th>{escape(status)}</th><td>{_prose(answer['description'])}</td><td>{kinds}</td></tr>"
            )
    if failures:
        yield f"<details><summary>Errors</summary><table>{''.join(failures)}</table></details>"


def _title(path: str, method: str) -> str:
    return f"<span class='method {method}'>{method.upper()}</span> <code>{escape(path)}</code>"


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [_row(name, field, required=name in required) for name, field in schema.get("properties", {}).items()]
    return _table(rows) if rows else ""


def _table(rows: Iterable[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("name", "type", "default", "meaning"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _row(name: str, field: Mapping[str, Any], *, required: bool) -> str:
    given = field.get("default")
    default = "required" if required else "" if given is None else json.dumps(given, ensure_ascii=False)
    cells = (_kind(field), escape(default), _prose(field.get("description")))
    return f"<tr><th><code>{escape(name)}</code></th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value in words, with links to objects."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'><code>{name}</code></a>"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            kinds = dict.fromkeys(_kind(one) for one in schema[key] if one.get("type") != "null")
            return " or ".join(kinds)
    if "const" in schema or "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    of = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(of, dict) and of:
        return f"object of {_kind(of)}"
    return escape(schema.get("type", "any value"))


def _prose(text: str | None) -> str:
    """A description in HTML; words between backticks are code."""
    return re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", escape(text or ""))


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    return schemas.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """A value of a schema, with the fields alone that it must have."""
    schema = _resolved(schema, schemas)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _example(schema[key][0], schemas, name)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") == "array":
        return [_example(schema.get("items", {}), schemas, name)]
    if "properties" in schema:
        fields = schema["properties"]
        needed = schema.get("required") or [next(iter(fields))]
        return {one: _example(fields[one], schemas, one) for one in needed}
    return _SAMPLES.get(schema.get("type", ""), _WORDS.get(name, "a red fox"))


def _curl(path: str, method: str, told: Mapping[str, Any], body: Any) -> str:
    """A line for a shell; the address is that of a service with default settings."""
    key = ' -H "authorization: Bearer $KEY"' if told.get("security") else ""
    sent = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -X {method.upper()} localhost:8080{path} -H 'content-type: {_JSON}'{key} \\\n  -d '{sent}'"
