"""Routes that report failures in their dialect's shape, also errors of FastAPI itself."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
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
LOCAL = "local"
"""Key in a request's state, set by the connection."""
log = logging.getLogger("reco_plugin.serve")
_UNREADABLE = (
    "the body cannot be parsed: send JSON in UTF-8, not compressed, that is not nested hundreds of levels deep"
    " and has no number of thousands of digits"
)
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here: leave it out",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "too_short": "is empty: give at least one",
    "string_too_short": "is empty",
}
"""pydantic's kinds of errors whose own words are about Python."""


THROTTLED = {"x-amzn-errortype": "ThrottlingException"}
"""Headers of 429 and 503 in every dialect: OpenSearch (ml-commons) tries again only where it reads this."""


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
                        guard.check(template, credential(request.headers), local=is_local(request.scope))
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


def is_local(scope: Scope) -> bool:
    """Whether a request came over the service's own socket; only the server says so, no client can."""
    return scope.get("state", {}).get(LOCAL) is True


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
        case HTTPException():  # of FastAPI itself, which does not say why it cannot parse a body
            return Failure(error.status_code, "invalid_body", _UNREADABLE)
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
    if failure.status in (429, 503):
        headers.update(THROTTLED)
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    if failure.status == 408:  # the rest of the body is not waited for
        headers["connection"] = "close"
    return JSONResponse(shape(failure), failure.status, headers)


def no_route(method: str, path: str, allowed: str | None) -> Failure:
    """The failure of a request that no route answers.

    >>> no_route("GET", "/v1/embeddings", "POST").message
    '/v1/embeddings takes POST, not GET'
    """
    if allowed:
        return Failure(405, "method_not_allowed", f"{path:.100} takes {allowed}, not {method}")
    return Failure(404, "not_found", f"there is no {path:.100} here: GET /docs shows what there is")


def _invalid(error: RequestValidationError) -> Failure:
    """The first error of a request, with the name of its field and what was given."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return Failure(400, "invalid_json", f"the body is not JSON: {reason}, at character {first['loc'][-1]}")
    of_field = [one for one in errors if one["loc"][:2] == first["loc"][:2]]  # one for each type that it may have
    deepest = max(of_field, key=lambda one: len(one["loc"]))
    name = _name(deepest, error.body)
    return Failure(400, "invalid_request", (name or "the body") + _reason(deepest), name or None)


def _name(error: Mapping[str, Any], body: Any) -> str:
    """The place of an error in what was sent, without pydantic's names of the types that it tried.

    >>> _name({"type": "string_type", "loc": ("body", "inputs", "list[str]", 1)}, {"inputs": ["a", 1]})
    'inputs[1]'
    """
    source, *parts = error["loc"]
    if source != "body":
        return ".".join(map(str, parts))
    name, value = "", body
    for left, part in zip(range(len(parts))[::-1], parts, strict=True):
        if isinstance(part, int) and isinstance(value, list):
            name, value = f"{name}[{part}]", value[part]
        elif isinstance(value, dict) and (part in value or error["type"] == "missing"):
            is_form = left and value.get("type") == part
            name, value = (name, value) if is_form else (f"{name}.{part}", value.get(part))
    return name.removeprefix(".")


def _reason(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, to follow its name."""
    given = error["input"]
    said: str = error["msg"].removeprefix("Value error, ").partition(", unable")[0]
    if error["type"] in _WORDS:
        how = ", sent with content-type: application/json" if isinstance(given, bytes | bytearray) else ""
        return f" {_WORDS[error['type']]}{how}"
    if error["type"].startswith("union_tag"):
        tags = error["ctx"].get("expected_tags")  # of the forms that an object may have
        return f": {error['ctx']['discriminator']} " + (f"must be {tags}" if tags else "is missing")
    if not said.startswith("Input should be"):
        return f": {said}"
    shown = given[:60] if isinstance(given, str) else given
    got = f", got {shown!r:.60}" if isinstance(given, str | int | float | None) else ""
    return said.replace("Input should be", " must be") + got
