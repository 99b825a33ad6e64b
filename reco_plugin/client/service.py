"""The HTTP client of `reco serve`. It retries requests, and returns plain vectors while the service is down."""

from __future__ import annotations

import math
import operator
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from ..errors import (
    ConfigError,
    ImageError,
    InputError,
    MemoryOverloaded,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    importing,
)
from ..options import given_options
from ..proxies import proxy_of, usable_environment
from ..types import Away, ImageInput, Modality, Pair, Role, Vectors
from ..values import check_items, check_key, check_vectors, each_pair, show
from .requests import (
    Refined,
    ServedOptions,
    ids_in_parts,
    input_type_of,
    item_fields,
    option_fields,
    pair_fields,
    read_refined,
    to_json,
    vector_rows,
)

if TYPE_CHECKING:
    import httpx

    from ..retrieval.guard import Circuit

T = TypeVar("T")
_RETRIED = frozenset({429, 503})
_MAX_PAUSE_S = 30.0
_FAILURES, _RETRY_S = 5, 10.0
"""Consecutive failures that open the circuit, and seconds until a query probes the service again."""
_ERROR_OF_STATUS: dict[int, type[RecoError]] = {
    400: InputError,
    401: ConfigError,
    403: ConfigError,
    404: ConfigError,
    413: InputError,
    415: ImageError,
    429: SessionOverloaded,
    502: SessionUnavailable,  # from a proxy that cannot reach the service
    503: SessionUnavailable,
    504: SessionTimeout,
}
_ERROR_OF_CODE: dict[str, type[RecoError]] = {
    "memory_unavailable": MemoryUnavailable,
    "memory_overloaded": MemoryOverloaded,
    "memory_timeout": MemoryTimeout,
}


@dataclass(frozen=True)
class Request:
    """One HTTP request to the service."""

    method: str
    path: str  # relative to the service's URL
    body: Mapping[str, Any] | None = None
    params: Sequence[tuple[str, str]] = ()  # of the query string
    is_admin: bool = False  # whether it needs the admin key
    start: int = 0  # position of its first item among the items of the call


class Client:
    """Calls a `reco serve`; safe to use from several threads.

    Example::

        with Client("http://localhost:8080", api_key="...") as reco:
            vectors = reco.embed_texts(["a red fox"], refine=True)
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        batch_size: int = 64,
        transport: Any = None,
        degrade_after_s: float | None = 3.0,
    ) -> None:
        """Keep the options; does not connect yet.

        Args:
            url: address of the service, as in ``http://localhost:8080``.
            api_key: bearer key, if the service requires one.
            admin_key: bearer key for changes to the memory.
            timeout_s: seconds per request.
            retries: how often a request is repeated if the queue is full or the service is not ready.
            batch_size: items per request.
            transport: an httpx transport in place of the network.
            degrade_after_s: seconds, retries included, after which :meth:`refine` returns the vectors of queries
                unchanged. Choose more than the service's ``memory_timeout_s`` (2), after which the service itself
                returns plain vectors. None: raise errors, for jobs that measure.

        Raises:
            MissingExtra: httpx is not installed.
            ConfigError: an invalid option.
        """
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError(f"url must be the address of a service, as in http://localhost:8080, got {show(url)}")
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number of at least 1, got {show(batch_size)}")
        if not timeout_s > 0 or not (degrade_after_s is None or degrade_after_s > 0):
            raise ConfigError(f"timeout_s and degrade_after_s must be more than 0, got {timeout_s}, {degrade_after_s}")
        with importing("httpx", "client", "the client"):
            import httpx

        from ..retrieval.guard import Breaker, Deadline, Guard, Outage  # here, so that importing the client stays light

        self.url, self.batch_size = url.rstrip("/"), batch_size
        self._degrades, self._query_s = degrade_after_s is not None, min(degrade_after_s or timeout_s, timeout_s)
        self._breaker = Breaker(_FAILURES, _RETRY_S)
        self._guard = Guard("service", self._breaker)
        self._outage = Outage
        self._deadline = Deadline(self._query_s, "degrade_after_s")
        self._httpx, self._retries = httpx, retries
        self._keys = {False: check_key("api_key", api_key), True: check_key("admin_key", admin_key)}
        with usable_environment():
            self._http: httpx.Client = httpx.Client(base_url=self.url, timeout=timeout_s, transport=transport)

    @property
    def circuit(self) -> Circuit:
        """The state of the circuit breaker, which stops queries to a service that failed several times in a row."""
        return self._breaker.circuit

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def embed_texts(
        self,
        texts: Sequence[str],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedOptions],
    ) -> Vectors:
        """Embed texts; (B, D) float32, unit-norm.

        Args:
            texts: B texts.
            role: a query, or one of the candidates of this call.
            refine: True or False; None leaves it to the service's policy.
            options: as in :meth:`refine`; without a ``target``, queries are compared with images, as by a ``Reco``.

        Raises:
            InputError: invalid input.
            ConfigError: a wrong key, or a wrong URL.
            SessionError: the service failed, cannot be reached, or timed out.
        """
        return self.embed(texts, modality="text", role=role, refine=refine, **options).vectors

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedOptions],
    ) -> Vectors:
        """Embed B images (paths, bytes or PIL images) to (B, D); otherwise as :meth:`embed_texts`."""
        return self.embed(images, modality="image", role=role, refine=refine, **options).vectors

    def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedOptions],
    ) -> Refined:
        """Embed B texts or images to (B, D), and report how far each moved; otherwise as :meth:`embed_texts`."""
        fields = {
            "input_type": input_type_of(role),
            "encoding_format": "base64",
            "reco": option_fields(options),
            **({} if refine is None else {"refine": refine}),
        }
        parts = self._parts(
            "/v1/embeddings", "input", item_fields(items, modality), fields, "query" if refine is False else role
        )
        return Refined.join([self.send(part, read_refined) for part in parts])

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        explain: bool = False,
        **options: Unpack[ServedOptions],
    ) -> Refined:
        """Refine (B, D) CLIP vectors of the service's encoder; while the service is down, queries stay unchanged.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: queries, or the candidates of one set.
            explain: also return the pairs that were used.
            options: as in :meth:`reco_plugin.Reco.refine`; ``exclude`` is one collection for all queries.

        Raises:
            RecoError: as :meth:`embed_texts`.
        """
        fields = {"modality": modality, "input_type": input_type_of(role), "explain": explain, **option_fields(options)}
        parts = self._parts("/v1/refine", "vectors", vector_rows(vectors), fields, role)
        send = self._send_guarded if self._degrades and role == "query" else self.send
        try:
            return Refined.join([send(part, read_refined) for part in parts])
        except self._outage as outage:
            outage.tell()
            rows, reason = np.asarray(vectors, np.float32), cast(Away, outage.reason)
            return Refined.unmoved(check_vectors(rows, rows.shape[-1]), reason, explain=explain)

    def explain(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality = "text",
        role: Role = "query",
        **options: Unpack[ServedOptions],
    ) -> Refined:
        """Refine B texts or images to (B, D) and return the pairs that were used; options as in :meth:`refine`."""
        fields = {"input_type": input_type_of(role), **option_fields(options)}
        parts = self._parts("/v1/explain", "input", item_fields(items, modality), fields, role)
        return Refined.join([self.send(part, read_refined) for part in parts])

    def match(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        results: Sequence[Sequence[float]],
        *,
        modality: Modality = "text",
        precision: float | None = None,
        documents: int | None = None,
        refine: bool = True,
    ) -> list[dict[str, Any]]:
        """Decide which results of an index are right; returns the answer of ``POST /v1/match`` for each query.

        Args:
            items: B queries.
            results: B rankings: the cosines of the results, the best first.
            modality: modality of the queries.
            precision: required share of right results among the first ones that pass; None: 0.9.
            documents: size of the index; None: as many as the memory has pairs.
            refine: whether the index was searched with refined vectors.
        """
        scores = [[{"score": float(score)} for score in ranking] for ranking in results]
        fields = given_options({"precision": precision, "documents": documents, "refine": refine})
        body = {"input": item_fields(items, modality), "results": scores} | fields
        return self.send(Request("POST", "/v1/match", body), operator.itemgetter("data"))

    def add_pairs(self, pairs: Iterable[Pair | tuple[Any, ...]]) -> int:
        """Add pairs to the memory, or replace those with the same id; needs the admin key. Returns how many."""
        stored, rows = 0, map(pair_fields, each_pair(pairs))
        while part := list(islice(rows, self.batch_size)):
            request = Request("POST", "/v1/memory/pairs", {"pairs": part}, is_admin=True)
            stored += self.send(request, operator.itemgetter("stored"))
        return stored

    def remove_pairs(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; needs the admin key. Returns how many existed."""
        listed = check_items(list(ids) if isinstance(ids, Set | Iterator) else ids, "ids")
        removed = 0
        for part in ids_in_parts(listed, self.batch_size):
            request = Request("DELETE", "/v1/memory/pairs", params=[("id", id_) for id_ in part], is_admin=True)
            removed += self.send(request, operator.itemgetter("removed"))
        return removed

    def _parts(self, path: str, name: str, rows: list[Any], fields: Mapping[str, Any], role: Role) -> list[Request]:
        """Split rows into requests. Candidates stay together, since they are refined as one set.

        Raises:
            InputError: no rows.
        """
        if not rows:
            raise InputError("nothing to send: the batch is empty")
        size = self.batch_size if role == "query" else sys.maxsize
        return [
            Request("POST", path, {name: rows[start : start + size], **fields}, start=start)
            for start in range(0, len(rows), size)
        ]

    def send(self, request: Request, read: Callable[[Any], T], until: float = math.inf) -> T:
        """Send one request, repeat it while the service is busy, and read its answer.

        Args:
            request: the request.
            read: makes the result from the JSON of the answer; with ``x-reco-degraded``, that reason is in it.
            until: time by ``time.monotonic`` after which nobody waits for the answer.

        Raises:
            SessionError: the client is closed; the service failed, cannot be reached, or timed out.
            RecoError: as the status and code of the answer say.
        """
        self._check_open()
        for tries in count():
            try:
                response = self._http.request(**self._arguments(request, until))
            except self._httpx.TransportError as error:
                if self._is_stale(error, tries, until):
                    continue
                raise self._transport_error(request, error) from error
            if (pause_s := self._pause_s(response, tries, until)) is None:
                break
            time.sleep(pause_s)
        return self._read(request, response, read)

    def _send_guarded(self, request: Request, read: Callable[[Any], T]) -> T:
        """Send a request of queries, within ``degrade_after_s``; raises ``Outage`` if the service fails or is down."""
        self._check_open()
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            return self._deadline.run(lambda: self.send(request, read, until))

    def _check_open(self) -> None:
        """Raise SessionError if this client is closed, which is no outage of the service."""
        if self._http.is_closed:
            raise SessionError(f"this client of {self.url} is closed: make another one")

    def _arguments(self, request: Request, until: float) -> dict[str, Any]:
        """Arguments of httpx's ``request``."""
        key = self._keys[request.is_admin]
        timeout = {} if until == math.inf else {"timeout": max(0.001, until - time.monotonic())}
        return timeout | {
            "method": request.method,
            "url": request.path,
            "content": None if request.body is None else to_json(request.body),
            "params": list(request.params) or None,
            "headers": ({} if request.body is None else {"content-type": "application/json"})
            | ({"authorization": f"Bearer {key}"} if key else {}),
        }

    def _is_stale(self, error: httpx.TransportError, tries: int, until: float) -> bool:
        """Whether a query failed on an old connection, as after a restart of the service, and is sent again at once."""
        return (
            tries == 0
            and until < math.inf
            and isinstance(error, self._httpx.ReadError | self._httpx.RemoteProtocolError)
        )

    def _pause_s(self, response: httpx.Response, tries: int, until: float) -> float | None:
        """Seconds before a retry; None if the answer is final, or no time is left."""
        if response.status_code not in _RETRIED or tries >= self._retries:
            return None
        after = response.headers.get("retry-after", "")
        pause_s = min(float(after) if after.isdigit() else 0.5 * 2**tries, _MAX_PAUSE_S)
        return pause_s if time.monotonic() + pause_s < until else None

    def _read(self, request: Request, response: httpx.Response, read: Callable[[Any], T]) -> T:
        """Read an answer, or raise the error that it reports."""
        try:
            answer = response.json()
            if response.is_success:
                if reason := response.headers.get("x-reco-degraded"):
                    self._warn(reason)
                    answer["degraded"] = answer.get("degraded") or reason
                return read(answer)
            code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "unreadable", f"this is no answer of a reco serve: {response.text[:200]!r}"
        kind = _ERROR_OF_CODE.get(code) or _ERROR_OF_STATUS.get(response.status_code, SessionError)
        part = f" (in the batch that starts at position {request.start})" if request.start else ""
        status = response.status_code
        raise kind(f"{self.url}{request.path} answered {status} ({code}): {message}{part}")

    def _transport_error(self, request: Request, error: httpx.TransportError) -> RecoError:
        """The error for a request without an answer."""
        kind = SessionTimeout if isinstance(error, self._httpx.TimeoutException) else SessionUnavailable
        reason = str(error).rstrip(".") or "no answer"
        return kind(
            f"{self.url}{request.path}: {type(error).__name__}: {reason}. Is `reco serve` running there?"
            f"{proxy_of(self.url)}"
        )

    def _warn(self, reason: str) -> None:
        from ..retrieval.guard import DegradedWarning

        warnings.warn(f"{self.url} answers with frozen CLIP vectors ({reason})", DegradedWarning, stacklevel=4)
