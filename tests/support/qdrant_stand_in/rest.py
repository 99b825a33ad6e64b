"""The REST paths that the plugin uses, as in Qdrant's OpenAPI."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter
from qdrant_client import models
from qdrant_client.http.models import models as rest

from .engine import Engine, Refusal

_NAME = r"(?P<name>[^/]+)"


class RestHandler(BaseHTTPRequestHandler):
    """One request; ``engine`` is set on a subclass."""

    engine: Engine
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        path = urlsplit(self.path).path
        try:
            for method, pattern, operation in _ROUTES:
                if method == self.command and (match := re.fullmatch(pattern, path)):
                    name = unquote(match.groupdict().get("name", ""))
                    result = operation(self.engine, self.headers.get("api-key"), name, body)
                    return self._send(200, {"result": _plain(result), "status": "ok", "time": 0.0})
            self._send(404, {"status": {"error": f"no such path: {self.command} {path}"}, "time": 0.0})
        except Refusal as refusal:
            header = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            self._send(refusal.status, {"status": {"error": refusal.text}, "time": 0.0}, header)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


def _plain(value: Any) -> Any:
    return TypeAdapter(Any).dump_python(value, mode="json", exclude_none=True)


def _create(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    asked = rest.CreateCollection.model_validate(body)
    arguments = {field: getattr(asked, field) for field in asked.model_fields_set}
    named = {"vectors_config": arguments.pop("vectors"), "sparse_vectors_config": arguments.pop("sparse_vectors", None)}
    return engine.create(name, key, {**named, **arguments})


def _update(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    metadata = rest.UpdateCollection.model_validate(body).metadata
    return engine.run("update_collection", key, lambda c: c.update_collection(name, metadata=metadata))


def _alias(engine: Engine, key: str | None, _: str, body: Any) -> Any:
    actions = rest.ChangeAliasesOperation.model_validate(body).actions
    return engine.run("update_aliases", key, lambda c: c.update_collection_aliases(actions), actions=actions)


def _upsert(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    points = rest.PointsList.model_validate(body).points
    return engine.run("upsert", key, lambda c: c.upsert(name, points), points=points)


def _update_vectors(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    points = rest.UpdateVectors.model_validate(body).points
    return engine.run("update_vectors", key, lambda c: c.update_vectors(name, points))


def _change(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    changes = rest.UpdateOperations.model_validate(body).operations
    return engine.run("update_batch", key, lambda c: c.batch_update_points(name, changes), changes=changes)


def _query(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    searches = rest.QueryRequestBatch.model_validate(body).searches
    return engine.query(name, key, searches)


def _scroll(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    asked = rest.ScrollRequest.model_validate(body)
    points, offset = engine.run(
        "scroll",
        key,
        lambda c: c.scroll(
            name,
            asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=asked.with_payload,
            with_vectors=asked.with_vector,
        ),
    )
    return {"points": points, "next_page_offset": offset}


def _retrieve(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    asked = rest.PointRequest.model_validate(body)
    return engine.run(
        "retrieve",
        key,
        lambda c: c.retrieve(name, asked.ids, with_payload=asked.with_payload, with_vectors=asked.with_vector),
    )


def _count(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    condition = rest.CountRequest.model_validate(body).filter
    return engine.run("count", key, lambda c: c.count(name, condition))


def _index(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    field = rest.CreateFieldIndex.model_validate(body)
    done = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
    return engine.run(
        "create_index", key, lambda _: done, collection=name, field=field.field_name, schema=field.field_schema
    )


def _remove(engine: Engine, key: str | None, name: str, body: Any) -> Any:
    gone = rest.PointIdsList.model_validate(body)
    return engine.run("delete", key, lambda c: c.delete(name, gone))


def _exists(engine: Engine, key: str | None, name: str, _: Any) -> Any:
    return models.CollectionExistence(exists=engine.run("exists", key, lambda c: c.collection_exists(name)))


_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/readyz", lambda *_: "all shards are ready"),
    ("GET", "/collections", lambda e, key, *_: e.run("list", key, lambda c: c.get_collections())),
    ("GET", f"/collections/{_NAME}", lambda e, key, name, _: e.get(name, key)),
    ("GET", f"/collections/{_NAME}/exists", _exists),
    ("PUT", f"/collections/{_NAME}", _create),
    ("PATCH", f"/collections/{_NAME}", _update),
    (
        "DELETE",
        f"/collections/{_NAME}",
        lambda e, key, name, _: e.run("delete_collection", key, lambda c: c.delete_collection(name)),
    ),
    ("GET", "/aliases", lambda e, key, *_: e.run("aliases", key, lambda c: c.get_aliases())),
    ("POST", "/collections/aliases", _alias),
    ("PUT", f"/collections/{_NAME}/vectors/words", lambda e, key, name, _: e.name_words(name, key, "words")),
    ("PUT", f"/collections/{_NAME}/points/vectors", _update_vectors),
    ("PUT", f"/collections/{_NAME}/points", _upsert),
    ("POST", f"/collections/{_NAME}/points", _retrieve),
    ("POST", f"/collections/{_NAME}/points/batch", _change),
    ("PUT", f"/collections/{_NAME}/index", _index),
    ("POST", f"/collections/{_NAME}/points/query/batch", _query),
    ("POST", f"/collections/{_NAME}/points/scroll", _scroll),
    ("POST", f"/collections/{_NAME}/points/count", _count),
    ("POST", f"/collections/{_NAME}/points/delete", _remove),
]
