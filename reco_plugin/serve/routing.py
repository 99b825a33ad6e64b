"""What a route does beside its work: keys, the JSON body, the deadline, and failures in its dialect's shape."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ..errors import InputError, RecoError
from ..values import did_you_mean, in_words, nearest
from .auth import MEMORY_PATH, right_of
from .failures import STOPPING, Failure, Refused, failure_of
from .logs import LOGGER
from .schemas import ERRORS, error_body
from .wire import answer_json, write_json

if TYPE_CHECKING:
    from .request_context import Life

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
Shape: TypeAlias = Callable[[Failure], dict[str, Any]]
"""A failure as the JSON body of a dialect."""
log = logging.getLogger(LOGGER)
_UNREADABLE = "the body cannot be parsed: send JSON in UTF-8, not compressed, with content-type: application/json"
PREFIXES: dict[str, Literal["plain", "refined"]] = {"/plain": "plain", "/refined": "refined"}
"""First segment of the path -> its meaning; stripped before routing."""
PROBES = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v1/health/live", "/v1/health/ready")
"""Paths that load balancers and monitoring call every few seconds."""
MOST_VALUES = 1_000_000
"""Numbers, strings, lists and objects in a body, counted by their commas and brackets: each takes 40 bytes and more."""
_SIGNS = b",[{:"
_SLASHES = re.compile("/{2,}")
_TWICE = re.compile("(/v1){2,}/")
AGAIN = {"retry-after": "1", "x-amzn-errortype": "ThrottlingException"}
"""Headers of 429 and 503 in every dialect: OpenSearch (ml-commons) tries again only where it reads the second."""


class BodyRefused(HTTPException):
    """A body that is not read to its end; an HTTPException, since FastAPI lets only those through while reading."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.status, failure.message)
        self.failure = failure


def life_of(request: Request) -> Life:
    """What is noted of a request, and its way to the embedder."""
    life: Life = request.state.life
    return life


def openai_shape(failure: Failure) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": error_body(failure).model_dump()}


def shape_for_all(failure: Failure) -> dict[str, Any]:
    """The same with Voyage's and Jina's ``detail`` and NVIDIA's and Cohere's ``message``: who calls is not known."""
    return openai_shape(failure) | {"detail": failure.message, "message": failure.message}


def answering_in(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> type[APIRoute]:
    """Make the ``route_class`` of a dialect's ``APIRouter``; ``headers`` are added to a failure.

    Example::

        routes = APIRouter(route_class=answering_in(lambda failure: {"detail": failure.message}))
    """

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            (method,) = self.methods or ("GET",)
            right = right_of(method, self.path_format)
            computes = method == "POST" and not self.path_format.startswith(MEMORY_PATH)
            handle = _taking_json(self.endpoint) or super().get_route_handler()

            async def answer(request: Request) -> Response:
                life = life_of(request)
                try:
                    if right is not None:  # before the body is read
                        life.key = life.edge.keys.check(right, life.sent)
                    if computes:
                        life.edge.lanes.check_room()
                    async with asyncio.timeout_at(life.until):
                        return await handle(request)
                except TimeoutError:
                    failure = life.late
                except asyncio.CancelledError:  # uvicorn cancels when `shutdown_s` is over
                    failure = STOPPING
                except Exception as error:
                    failure = to_failure(error)
                life.code = failure.code
                return to_response(failure, shape, headers(failure))

            return answer

    return DialectRoute


def _taking_json(endpoint: Callable[..., Awaitable[Response]]) -> Handler | None:
    """A handler that makes the endpoint's ``body`` from the bytes of the request; None where it has none.

    FastAPI would make a tree of Python's objects first, and look up each parameter in each request.
    """
    model = get_type_hints(endpoint).get("body")
    if model is None:
        return None

    async def handle(request: Request) -> Response:
        sent = life_of(request).sent
        if b"origin" in sent and not sent.get(b"content-type", b"").lower().startswith(b"application/json"):
            raise Refused(Failure(400, "invalid_body", _UNREADABLE))  # browsers send other types without a preflight
        raw = await request.body()
        if sum(map(raw.count, _SIGNS)) > MOST_VALUES:
            message = f"the body has more than {MOST_VALUES:,} values: send less at once"
            raise Refused(Failure(413, "body_too_large", message))
        try:
            body: BaseModel = model.model_validate_json(raw)
        except ValidationError as error:
            raise Refused(_invalid(error.errors())) from None
        return await endpoint(request, body=body, **request.path_params)

    return handle


def memory_routes() -> APIRouter:
    """An empty router below :data:`MEMORY_PATH`."""
    return APIRouter(
        prefix=MEMORY_PATH,
        route_class=answering_in(openai_shape),
        tags=["memory"],
        responses=ERRORS,
    )


def routed(scope: Scope) -> Scope:
    """The scope by which a route is found, with the meaning of the prefix in its state.

    Slashes too many, which clients make of a base URL that ends in one, are dropped, and so is a second ``/v1``, which
    they add to a base URL that has it. HEAD is answered as GET: the server drops the body.

    >>> routed({"path": "/refined//v1/v1/embeddings/", "method": "HEAD"})
    {'path': '/v1/embeddings', 'method': 'GET', 'state': {'prefix': 'refined'}}
    """
    state = scope.setdefault("state", {})
    path, manner = path_of(scope["path"])
    if manner is not None:
        state["prefix"] = manner
    return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}


def path_of(asked: str) -> tuple[str, Literal["plain", "refined"] | None]:
    """The path by which a route is found, and the meaning of its prefix."""
    path, said = _TWICE.sub("/v1/", _SLASHES.sub("/", asked)), None
    for prefix, manner in PREFIXES.items():
        if f"{path}/".startswith(f"{prefix}/"):
            path, said = path.removeprefix(prefix) or "/", manner
    return path if path == "/" else path.removesuffix("/"), said


def to_failure(error: Exception) -> Failure:
    """The failure of any exception; defects are logged with their trace."""
    match error:
        case RequestValidationError():
            return _invalid([one | {"loc": one["loc"][1:]} for one in error.errors()])  # without "query"
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


def to_response(failure: Failure, shape: Shape, more: Mapping[str, str] | None = None) -> Response:
    """The response to a failure, with further headers."""
    headers: dict[str, str] = {}
    if failure.status in (429, 503):
        headers |= AGAIN
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    response = answer_json(write_json(shape(failure)))
    response.status_code = failure.status
    response.headers.update({**headers, **(more or {})})
    return response


def no_route(method: str, path: str, allowed: str | None, known: Collection[str] = ()) -> Failure:
    """The failure of a request that no route answers.

    >>> no_route("GET", "/v1/embeddings", "POST").message
    '/v1/embeddings takes POST, not GET'
    >>> no_route("POST", "/v1/embedding", None, ["/v1/embeddings", "/v1/models"]).message
    "there is no /v1/embedding here, did you mean '/v1/embeddings'? GET /openapi.json shows what there is"
    """
    if allowed:
        return Failure(405, "method_not_allowed", f"{path:.100} takes {allowed}, not {method}")
    asked = path[:100]  # a longer one is like none, and would take long to compare
    near = f", {did_you_mean(asked, known)} " if nearest(asked, known) else ": "
    return Failure(404, "not_found", f"there is no {asked} here{near}GET /openapi.json shows what there is")


def _invalid(errors: Sequence[Any]) -> Failure:
    """The first error of a request, with the name of its field and what was given."""
    of_field = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]  # one for each type that it may have
    deepest = max(of_field, key=lambda one: len(one["loc"]))
    if deepest["type"] == "json_invalid":
        return Failure(400, "invalid_json", f"the body is not JSON in UTF-8: {deepest['msg']}")
    name, given = _name(deepest["loc"]), deepest["input"]
    message = in_words(deepest["msg"]).removeprefix(f"{name} ")
    own = ", got " in message  # by a check of ours
    got = f", got {given!r:.60}" if isinstance(given, str | int | float | None) and not own else ""
    return Failure(400, "invalid_request", f"{name or 'the body'}: {message}{got}", name or None)


def _name(place: Sequence[str | int]) -> str:
    """The place of an error in what was sent, without pydantic's names of the types that it tried.

    >>> _name(("inputs", "list[str]", 1))
    'inputs[1]'
    """
    sent = [part for part in place if isinstance(part, int) or part.isidentifier()]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in sent).removeprefix(".")
