"""What is answered at the door, in the turn of the loop that reads it: probes, and refusals while the queue is full.

An overloaded service refuses many times what it answers, and each of its turns takes long. Here a request takes none of
the layers of the application, and no turn more. What is not as simple as that goes the usual way, which says the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

from .edge import Edge
from .failures import Failure, Refused
from .life import Ends, id_of
from .logs import request_id
from .routes import ADMIN_PATH, KeyCheck, credential, drop_second_root, is_local, path_of

Fields = list[tuple[bytes, bytes]]
Probe = Callable[[], tuple[int, bytes]]
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True)
class DoorAnswer:
    """A whole answer."""

    status: int
    fields: Fields
    body: bytes


class Door:
    """Shared by all connections; used from the event loop."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        routers: Sequence[APIRouter],
        edge: Edge,
        *,
        guard: KeyCheck,
        ends: Ends,
        knows: Callable[[bytes], bool],
    ) -> None:
        """Look for the routes whose requests wait for a thread.

        Args:
            probes: their answers, by paths.
            routers: of routes that may be refused.
            edge: has the queue, and makes ids.
            guard: checks keys, before a request is told that the queue is full.
            ends: notes what was answered.
            knows: whether a ``host`` header is one of the service's.
        """
        self._probes, self._pool, self._lives = probes, edge.pool, edge.lives
        self._guard, self._ends, self._knows = guard, ends, knows
        self._gzip_bytes = edge.settings.gzip_bytes
        self._varies: Fields = [(b"vary", b"Origin")] if edge.settings.cors_origins else []
        self._latest: tuple[Any, Failure, Response] | None = None
        self._asking: dict[str, Any] = {
            route.path: route
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute) and hasattr(route, "refusal") and not route.param_convertors
            if route.methods == {"POST"} and not route.path.startswith(ADMIN_PATH)
        }

    @property
    def is_full(self) -> bool:
        """Whether requests that wait for a thread are refused."""
        return self._pool.refusal is not None

    def answer(self, scope: Scope) -> DoorAnswer | None:
        """The answer to a request whose body is whole; None: it goes the usual way."""
        began, root = time.perf_counter(), scope.get("root_path", "")
        drop_second_root(scope)
        path, _ = path_of(scope["path"], root)
        path = path.removeprefix(root)
        probe = self._probes.get(path) if scope["method"] == "GET" else None
        full = self._pool.refusal if scope["method"] == "POST" else None
        if probe is None and full is None:
            return None
        sent: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        if b"origin" in sent or not self._knows(sent.get(b"host", b"")):
            return None
        if probe is not None:
            status, body = probe()
            fields: Fields = [(b"content-length", b"%d" % len(body)), _JSON]
        elif full is not None:
            if (route := self._asking.get(path)) is None or not self._may(route, sent, scope):
                return None
            response = self._refused(route, full)
            status, fields, body = full.status, response.raw_headers, bytes(response.body)
        if 0 < self._gzip_bytes <= len(body):
            return None
        said = id_of(sent, self._lives)
        token = request_id.set(said)
        self._ends.note(scope, path, status, time.perf_counter() - began, {})
        request_id.reset(token)
        return DoorAnswer(status, [*fields, *self._varies, (b"x-request-id", said.encode("ascii"))], body)

    def _refused(self, route: Any, full: Failure) -> Response:
        """A refusal, made where the latest one was another: hundreds in a row are the same."""
        if self._latest is None or self._latest[0] is not route or self._latest[1] != full:
            self._latest = route, full, route.refusal(full)
        return self._latest[2]

    def _may(self, route: Any, sent: Mapping[bytes, bytes], scope: Scope) -> bool:
        try:
            self._guard.check(route.path, credential(sent), local=is_local(scope))
        except Refused:
            return False
        return True
