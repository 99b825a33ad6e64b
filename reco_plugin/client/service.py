"""Requests of a client: sent, sent again, and answered without the service while it is away."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

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
from ..proxies import proxy_of, usable_environment
from ..types import Away, ImageInput, Modality, Pair, Role, Vectors
from ..values import check_key, check_vectors, show
from . import requests
from .requests import Call, Refined, ServedHow, T, to_json

if TYPE_CHECKING:
    import httpx

    from ..retrieval.guard import Circuit

_AGAIN = frozenset({429, 503})
_LONGEST_S = 30.0
_FAILURES, _RETRY_S = 5, 10.0
"""Failures in a row after which queries are answered without the service, and seconds until one asks again."""
_MEANS: dict[int, type[RecoError]] = {
    400: InputError,
    401: ConfigError,
    403: ConfigError,
    404: ConfigError,
    413: InputError,
    415: ImageError,
    429: SessionOverloaded,
    502: SessionUnavailable,  # a proxy's, which reaches no service
    503: SessionUnavailable,
    504: SessionTimeout,
}
_MEANS_OF_MEMORY: dict[str, type[RecoError]] = {
    "memory_unavailable": MemoryUnavailable,
    "memory_overloaded": MemoryOverloaded,
    "memory_timeout": MemoryTimeout,
}


class Service:
    """A `reco serve`, as the client sees it."""

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
            url: as in ``http://localhost:8080``.
            api_key: bearer key, if the service has any.
            admin_key: bearer key of the memory.
            timeout_s: seconds per request.
            retries: how often a request is repeated if the queue is full or the service not ready.
            batch_size: items per request.
            transport: of httpx, instead of the network.
            degrade_after_s: seconds, retries included, after which vectors of queries that are to be refined come back
                as they are; longer than the service's ``memory_timeout_s`` (2), after which it answers plain vectors
                itself. None: errors, for jobs that measure.

        Raises:
            MissingExtra: httpx is not installed.
            ConfigError: an option that no client can have.
        """
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError(f"url must be the address of a service, as in http://localhost:8080, got {show(url)}")
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number of at least 1, got {show(batch_size)}")
        if not timeout_s > 0 or not (degrade_after_s is None or degrade_after_s > 0):
            raise ConfigError(f"timeout_s and degrade_after_s must be more than 0, got {timeout_s}, {degrade_after_s}")
        with importing("httpx", "client", "the client"):
            import httpx

        from ..retrieval.guard import (  # beside httpx: importing this package stays light
            Breaker,
            Deadline,
            Guard,
            Outage,
        )

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
        """Whether the service is asked by queries now, and if not, why and for how long."""
        return self._breaker.circuit

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, call: Call[T], until: float = math.inf) -> T:
        """Send one request, again while the service has no room, and read its answer; errors as elsewhere.

        Args:
            call: the request.
            until: by the monotonic clock, when nobody waits for the answer any more.
        """
        self._check_open()
        for tried in count():
            try:
                response = self._http.request(**self._arguments(call, until))
            except self._httpx.TransportError as error:
                if self._broke(error, tried, until):
                    continue
                raise self._make_error(call, error) from error
            if (pause_s := self._pause_s(response, tried, until)) is None:
                break
            time.sleep(pause_s)
        return self._read(call, response)

    def _check_open(self) -> None:
        """Refuse a call of a client that is closed, which is no outage of the service.

        Raises:
            SessionError: it is closed.
        """
        if self._http.is_closed:
            raise SessionError(f"this client of {self.url} is closed: make another one")

    def _arguments(self, call: Call[T], until: float = math.inf) -> dict[str, Any]:
        """Arguments of httpx's ``request``."""
        key = self._keys[call.admin]
        timed = {} if until == math.inf else {"timeout": max(0.001, until - time.monotonic())}
        return timed | {
            "method": call.method,
            "url": call.path,
            "content": None if call.body is None else to_json(call.body),
            "params": list(call.params) or None,
            "headers": ({} if call.body is None else {"content-type": "application/json"})
            | ({"authorization": f"Bearer {key}"} if key else {}),
        }

    def _broke(self, error: httpx.TransportError, tried: int, until: float) -> bool:
        """Whether a query is sent again at once: its connection broke, as old ones do when a service is restarted."""
        return (
            tried == 0
            and until < math.inf
            and isinstance(error, self._httpx.ReadError | self._httpx.RemoteProtocolError)
        )

    def _pause_s(self, response: httpx.Response, tried: int, until: float = math.inf) -> float | None:
        """Seconds before a retry; None if the answer counts, or if there is no time for another one."""
        if response.status_code not in _AGAIN or tried >= self._retries:
            return None
        after = response.headers.get("retry-after", "")
        pause_s = min(float(after) if after.isdigit() else 0.5 * 2**tried, _LONGEST_S)
        return pause_s if time.monotonic() + pause_s < until else None

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        """Read the answer.

        Raises:
            RecoError: of an error's status and code.
        """
        try:
            answer = response.json()
            if response.is_success:
                if reason := response.headers.get("x-reco-degraded"):
                    self._warn(reason)
                return call.told(call.read(answer), response.headers)
            code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, RecoError):
                raise
            code, message = "unreadable", f"this is no answer of a reco serve: {response.text[:200]!r}"
        kind = _MEANS_OF_MEMORY.get(code) or _MEANS.get(response.status_code, SessionError)
        part = f" (in the batch that starts at position {call.start})" if call.start else ""
        raise kind(f"{self.url}{call.path} answered {response.status_code} ({code}): {message}{part}")

    def _make_error(self, call: Call[T], error: httpx.TransportError) -> RecoError:
        """The error of a request without an answer."""
        kind = SessionTimeout if isinstance(error, self._httpx.TimeoutException) else SessionUnavailable
        said = str(error).rstrip(".") or "no answer"
        return kind(
            f"{self.url}{call.path}: {type(error).__name__}: {said}. Is `reco serve` running there?{proxy_of(self.url)}"
        )

    def _warn(self, reason: str) -> None:
        from ..retrieval.guard import DegradedWarning

        warnings.warn(f"{self.url} answers with frozen CLIP vectors ({reason})", DegradedWarning, stacklevel=4)


class Client(Service):
    """Calls a `reco serve`; safe to use from several threads.

    Example::

        with Client("http://localhost:8080", api_key="...") as reco:
            vectors = reco.embed_texts(["a red fox"], refine=True)
    """

    def embed_texts(
        self, texts: Sequence[str], *, role: Role = "query", refine: bool | None = None, **options: Unpack[ServedHow]
    ) -> Vectors:
        """Embed texts; (B, D) float32, unit-norm.

        Args:
            texts: B texts.
            role: a query, or one of the candidates of this call.
            refine: True or False; None leaves it to the service's policy.
            options: as in :meth:`refine`; without a ``target``, queries are compared with images, as of a ``Reco``.

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
        **options: Unpack[ServedHow],
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
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Embed B texts or images to (B, D), and say whether they are refined; otherwise as :meth:`embed_texts`."""
        parts = requests.embed(items, modality, role, refine, self.batch_size, options)
        return Refined.join([self.send(part) for part in parts])

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        explain: bool = False,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine (B, D) CLIP vectors of the service's encoder; queries stay as they are while the service is away.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: queries, or the candidates of one set.
            explain: also return the pairs that were used.
            options: as in :meth:`reco_plugin.Reco.refine`; ``exclude`` is one collection for all.

        Raises:
            RecoError: as :meth:`embed_texts`.
        """
        parts = requests.refine(vectors, modality, role, self.batch_size, explain=explain, options=options)
        if not self._degrades or role != "query":
            return Refined.join([self.send(part) for part in parts])
        try:
            return Refined.join([self._send_guarded(part) for part in parts])
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
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine B texts or images to (B, D) and return the pairs that were used; options as in :meth:`refine`."""
        parts = requests.explain(items, modality, role, self.batch_size, options)
        return Refined.join([self.send(part) for part in parts])

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
        """Say which results of an index are right: for each query what ``POST /v1/match`` answers.

        Args:
            items: B queries.
            results: B rankings: the cosines of the results, the best first.
            modality: of the queries.
            precision: share of right ones among the first results that pass; None: 90 %.
            documents: of the index; None: as many as the memory has pairs.
            refine: whether the index was searched with refined vectors.
        """
        fields = {"precision": precision, "documents": documents, "refine": refine}
        return self.send(requests.match(items, results, modality, fields))

    def add_pairs(self, pairs: Iterable[Pair | tuple[Any, ...]]) -> int:
        """Add pairs to the memory, or replace those with the same id; needs the admin key. Returns how many."""
        return sum(map(self.send, requests.add_pairs(pairs, self.batch_size)))

    def remove_pairs(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; needs the admin key. Returns how many existed."""
        return sum(map(self.send, requests.remove_pairs(ids, self.batch_size)))

    def _send_guarded(self, call: Call[T]) -> T:
        """Send a request of queries: not while the service is known to be away, and with all tries in short time."""
        self._check_open()
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            return self._deadline.run(lambda: self.send(call, until))
