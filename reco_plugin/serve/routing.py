"""What every route does besides its work: check the key, parse the body, keep the deadline and report failures."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ..errors import InputError, RecoError
from ..memory import in_scope
from ..values import did_you_mean, in_words, nearest
from .auth import MEMORY_PATH, WHOLE_MEMORY, right_of
from .failures import STOPPING, Failure, Refused, failure_of
from .logs import LOGGER
from .schemas import ERRORS, ErrorBody
from .wire import json_response, write_json

if TYPE_CHECKING:
    from .request_context import RequestContext

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
Shape: TypeAlias = Callable[[Failure], dict[str, Any]]
"""Converts a failure to the JSON body of a dialect."""
log = logging.getLogger(LOGGER)
_UNREADABLE = "the body cannot be parsed: send JSON in UTF-8, not compressed, with content-type: application/json"
PREFIXES: dict[str, Literal["plain", "refined"]] = {"/plain": "plain", "/refined": "refined"}
"""The mode of each prefix of a path, which is stripped before routing."""
PROBES = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v1/health/live", "/v1/health/ready")
"""Paths that load balancers and monitoring call every few seconds."""
MAX_VALUES = 1_000_000
"""Limit of the numbers, strings, lists and objects in a body, by its commas and brackets. Each takes over 40 bytes."""
_SIGNS = b",[{:"
_SLASHES = re.compile("/{2,}")
_REPEATED_V1 = re.compile("(/v1){2,}/")
RETRY_HEADERS = {"retry-after": "1", "x-amzn-errortype": "ThrottlingException"}
"""Headers of 429 and 503 in every dialect. OpenSearch (ml-commons) retries only if it reads the second."""


class BodyRefused(HTTPException):
    """A body that is not read to its end. FastAPI lets only an HTTPException through while it reads."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.status, failure.message)
        self.failure = failure


def context_of(request: Request) -> RequestContext:
    """Return the context of a request."""
    context: RequestContext = request.state.context
    return context


def openai_shape(failure: Failure) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    body = ErrorBody(message=failure.message, type=failure.kind, param=failure.param, code=failure.code)
    return {"error": body.model_dump()}


def shape_for_all(failure: Failure) -> dict[str, Any]:
    """OpenAI's shape with ``detail`` for Voyage and Jina and ``message`` for NVIDIA and Cohere: any client may call."""
    return openai_shape(failure) | {"detail": failure.message, "message": failure.message}


def route_class(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> type[APIRoute]:
    """Make the ``route_class`` of a dialect's ``APIRouter``. Its failures have a shape, and further ``headers``.

    Example::

        routes = APIRouter(route_class=route_class(lambda failure: {"detail": failure.message}))
    """

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            (method,) = self.methods or ("GET",)
            right = right_of(method, self.path_format)
            of_whole = self.path_format.startswith(WHOLE_MEMORY)
            computes = method == "POST" and not self.path_format.startswith(MEMORY_PATH)
            model = get_type_hints(self.endpoint).get("body")
            handle = partial(_call_with_body, self.endpoint, model) if model else super().get_route_handler()

            async def answer(request: Request) -> Response:
                context = context_of(request)
                try:
                    if right is not None:  # before the body is read
                        context.key = context.state.keys.check(right, context.headers)
                    if of_whole:
                        context.check_whole()
                    if computes:
                        context.state.executor.check_room(caller=context.key.name)
                    async with asyncio.timeout_at(context.deadline):
                        with in_scope(context.key.scope):  # whatever the route does
                            return await handle(request)
                except TimeoutError:
                    failure = context.timeout
                except asyncio.CancelledError:  # uvicorn cancels when `shutdown_s` is over
                    failure = STOPPING
                except Exception as error:
                    failure = to_failure(error)
                context.code = failure.code
                return to_response(failure, shape, headers(failure))

            return answer

    return DialectRoute


async def _call_with_body(
    endpoint: Callable[..., Awaitable[Response]], model: type[BaseModel], request: Request
) -> Response:
    """Parse the bytes of a body, and call the endpoint.

    FastAPI would first make a tree of Python objects, and look up each parameter for each request.
    """
    headers = context_of(request).headers
    if b"origin" in headers and not headers.get(b"content-type", b"").lower().startswith(b"application/json"):
        raise Refused(Failure(400, "invalid_body", _UNREADABLE))  # browsers send other types without a preflight
    raw = await request.body()
    if sum(map(raw.count, _SIGNS)) > MAX_VALUES:
        message = f"the body has more than {MAX_VALUES:,} values: send less at once"
        raise Refused(Failure(413, "body_too_large", message))
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        raise Refused(_invalid(error.errors())) from None
    return await endpoint(request, body=body, **request.path_params)


def own_routes(tag: str, prefix: str = "") -> APIRouter:
    """Make an empty router whose failures have OpenAI's format."""
    return APIRouter(prefix=prefix, route_class=route_class(openai_shape), tags=[tag], responses=ERRORS)


def normalized(scope: Scope) -> Scope:
    """Return the scope by which a route is found, with the mode of the prefix in its state.

    Extra slashes are dropped; clients add them to a base URL that ends in one. A second ``/v1`` is dropped; clients add
    it to a base URL that has it. HEAD is answered as GET, and the server drops the body.

    >>> normalized({"path": "/refined//v1/v1/embeddings/", "method": "HEAD"})
    {'path': '/v1/embeddings', 'method': 'GET', 'state': {'prefix': 'refined'}}
    """
    state = scope.setdefault("state", {})
    path = _REPEATED_V1.sub("/v1/", _SLASHES.sub("/", scope["path"]))
    for prefix, mode in PREFIXES.items():
        if f"{path}/".startswith(f"{prefix}/"):
            path, state["prefix"] = path.removeprefix(prefix) or "/", mode
    if path != "/":
        path = path.removesuffix("/")
    return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}


def to_failure(error: Exception) -> Failure:
    """Convert any exception. A defect is logged with its trace."""
    match error:
        case RequestValidationError():
            return _invalid([one | {"loc": one["loc"][1:]} for one in error.errors()])  # without "query"
        case BodyRefused():
            return error.failure
        case HTTPException():  # FastAPI's own, which does not explain why it cannot parse a body
            return Failure(error.status_code, "invalid_body", _UNREADABLE)
    failure = failure_of(error)
    if isinstance(error, RecoError) and not isinstance(error, InputError):  # callers get no details of these
        log.warning("request failed: %s", error, extra={"code": failure.code})
    elif not isinstance(error, RecoError | Refused):
        log.error("request failed: %s", error, exc_info=error, extra={"code": failure.code})
    return failure


def to_response(failure: Failure, shape: Shape, more: Mapping[str, str] | None = None) -> Response:
    """Make the response to a failure, with further headers."""
    headers: dict[str, str] = {}
    if failure.status in (429, 503):
        headers |= RETRY_HEADERS
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    response = json_response(write_json(shape(failure)))
    response.status_code = failure.status
    response.headers.update({**headers, **(more or {})})
    return response


def no_route(method: str, path: str, allowed: str | None, known: Collection[str] = ()) -> Failure:
    """Return the failure of a request that no route answers.

    >>> no_route("GET", "/v1/embeddings", "POST").message
    '/v1/embeddings takes POST, not GET'
    >>> no_route("POST", "/v1/embedding", None, ["/v1/embeddings", "/v1/models"]).message
    "there is no /v1/embedding here, did you mean '/v1/embeddings'? GET /openapi.json shows what there is"
    """
    if allowed:
        return Failure(405, "method_not_allowed", f"{path:.100} takes {allowed}, not {method}")
    path = path[:100]  # a longer one resembles no route, and takes long to compare
    hint = f", {did_you_mean(path, known)} " if nearest(path, known) else ": "
    return Failure(404, "not_found", f"there is no {path} here{hint}GET /openapi.json shows what there is")


def _invalid(errors: Sequence[Any]) -> Failure:
    """Return the failure of the first error, with its field and value."""
    of_field = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]  # one for each type that it may have
    deepest = max(of_field, key=lambda one: len(one["loc"]))
    if deepest["type"] == "json_invalid":
        return Failure(400, "invalid_json", f"the body is not JSON in UTF-8: {deepest['msg']}")
    name, value = _field_name(deepest["loc"]), deepest["input"]
    message = in_words(deepest["msg"]).removeprefix(f"{name} ")
    has_value = ", got " in message  # our own checks write it
    got = f", got {value!r:.60}" if isinstance(value, str | int | float | None) and not has_value else ""
    return Failure(400, "invalid_request", f"{name or 'the body'}: {message}{got}", name or None)


def _field_name(place: Sequence[str | int]) -> str:
    """Return the name of a field without the types that pydantic tried.

    >>> _field_name(("inputs", "list[str]", 1))
    'inputs[1]'
    """
    parts = [part for part in place if isinstance(part, int) or part.isidentifier()]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
