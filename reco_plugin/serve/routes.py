"""Routes that report failures in their dialect's shape, also errors of FastAPI itself."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ..errors import InputError, RecoError
from .auth import credential
from .bodies import BodyRefused, JsonRequest
from .failures import STOPPING, Failure, Refused, failure_of
from .schemas import error_body

Shape: TypeAlias = Callable[[Failure], dict[str, Any]]
"""A failure as the JSON body of a dialect."""
log = logging.getLogger("reco_plugin.serve")


def openai_shape(failure: Failure) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``, also the answer to unknown paths."""
    return {"error": error_body(failure).model_dump()}


def answering_in(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> type[APIRoute]:
    """Make the ``route_class`` of a dialect's ``APIRouter``; ``headers`` are added to a failure.

    Example::

        routes = APIRouter(route_class=answering_in(lambda failure: {"detail": failure.message}))
    """

    class DialectRoute(APIRoute):
        said_in = staticmethod(shape)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle, template = super().get_route_handler(), self.path_format

            async def answer(request: Request) -> Response:
                guard = getattr(request.app.state, "guard", None)
                try:
                    if guard is not None:  # before the body is read
                        guard.check(template, credential(request.headers))
                        if request.method == "POST" and not template.startswith("/v1/memory"):
                            request.app.state.edge.pool.check_room()
                    response = await handle(JsonRequest(request.scope, request.receive))
                except asyncio.CancelledError:  # uvicorn cancels when `shutdown_s` is over
                    response = to_response(STOPPING, shape)
                except Exception as error:
                    response = to_response(failure := to_failure(error), shape)
                    response.headers.update(headers(failure))
                response.headers.update(getattr(request.state, "headers", {}))
                return response

            return answer

    return DialectRoute


class Shapes:
    """The shape of failures for each path; an unknown path has that of the most similar one."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._shapes: dict[str, Shape] = {
            route.path_format: getattr(route, "said_in", openai_shape)
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
        }

    def of(self, scope: Scope) -> Shape:
        """The shape for a request: that of the path with the longest common beginning, ours without one."""
        asked = scope["path"].removeprefix(scope.get("root_path", "")).split("/")[1:]
        shared = {path: _begin_alike(path.split("/")[1:], asked) for path in self._shapes}
        best = max(shared, key=shared.__getitem__)
        return self._shapes[best] if shared[best] else openai_shape


def _begin_alike(path: Sequence[str], asked: Sequence[str]) -> int:
    """How many leading segments are the same.

    >>> _begin_alike(["model", "{model}", "invoke"], ["model", "clip", "invoke", ""])
    3
    """
    same = [known == given or known.startswith("{") for known, given in zip(path, asked, strict=False)]
    return [*same, False].index(False)


def to_failure(error: Exception) -> Failure:
    """The failure of any exception; defects are logged with their trace."""
    match error:
        case RequestValidationError():
            return _invalid(error)
        case BodyRefused():
            return error.failure
        case HTTPException():  # of FastAPI itself: unknown path or method, unreadable body
            code = {400: "invalid_body", 404: "not_found", 405: "method_not_allowed"}.get(
                error.status_code, "http_error"
            )
            return Failure(error.status_code, code, str(error.detail))
    failure = failure_of(error)
    if isinstance(error, RecoError) and not isinstance(error, InputError):  # callers get no details of these
        log.warning("request failed: %s", error, extra={"code": failure.code})
    elif not isinstance(error, RecoError | Refused):
        log.error("request failed: %s", error, exc_info=error, extra={"code": failure.code})
    return failure


def to_response(failure: Failure, shape: Shape) -> JSONResponse:
    """The response to a failure."""
    headers: dict[str, str] = {}
    if failure.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(failure.retry_after_s)))
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    if failure.status == 408:  # the rest of the body is not waited for
        headers["connection"] = "close"
    return JSONResponse(shape(failure), failure.status, headers)


def _invalid(error: RequestValidationError) -> Failure:
    """The first error of a body, with the name of its field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return Failure(400, "invalid_json", f"the body is not JSON: {reason}, at character {first['loc'][-1]}")
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(place)
    reason = first["msg"].removeprefix("Value error, ")  # pydantic's prefix of our own messages
    return Failure(400, "invalid_request", f"{name or 'body'}: {reason}", name or None)
