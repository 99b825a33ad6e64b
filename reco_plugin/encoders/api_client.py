"""The HTTP client of an API that encodes: it splits batches, retries calls, checks vectors and counts requests.

The model behind an API has no checksum. Its vectors of fixed inputs change only by rounding, and those of another model
differ more. The fingerprint keeps a sketch of them: their coordinates along a few fixed random directions, from which
:mod:`reco_plugin.fingerprint` estimates the distance of two measurements.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import Counter

from ..errors import (
    ConfigError,
    InputError,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    VectorError,
    importing,
)
from ..fingerprint import are_one_encoder, make_sketch, sketch_change
from ..proxies import proxy_of, usable_environment
from ..settings import Settings
from ..types import Fingerprint, Modality, Vectors
from ..values import check_key, check_vectors
from .api_dialects import DIALECTS, IMAGES, ApiAddress, to_row

if TYPE_CHECKING:
    import httpx
    import tenacity

_BODY_BYTES = 8_000_000  # items of one request; most providers refuse 10 to 20 MB
_MESSAGE_CHARS = 300  # characters of an answer in a message
_MAX_PAUSE_S, _FIRST_PAUSE_S = 10.0, 0.5
_RETRIED = {429: SessionOverloaded, 408: SessionTimeout, 504: SessionTimeout} | dict.fromkeys(
    (409, 425, 500, 502, 503, 529), SessionUnavailable
)
"""Statuses after which a call is repeated -> the error after the last attempt."""
_INVALID_INPUT = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class ServedModel:
    """The model of another `reco serve`, as that service reports it."""

    fingerprint: Fingerprint
    k: int  # default number of neighbours per query
    coverage: float | None  # default of the option ``coverage``


class _Retry(Exception):
    """A failure after which the request may be repeated."""

    def __init__(self, error: RecoError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


class ApiClient:
    """Calls one API; safe to use from several threads.

    Args:
        address: address of the API.
        settings: key and timeouts.
        transport: an httpx transport in place of the network.

    Raises:
        MissingExtra: httpx or tenacity is not installed.
    """

    def __init__(self, address: ApiAddress, settings: Settings, transport: Any = None) -> None:
        with importing(None, "api", "an encoder that is an API"):
            import httpx
            import tenacity
        self.address, self._httpx, self._tenacity = address, httpx, tenacity
        calls, items = "requests to the API that encodes, by outcome", "texts and images that the API encoded"
        self.calls = Counter("reco_encoder_api_calls", calls, ["provider", "outcome"], registry=None)
        self.items = Counter("reco_encoder_api_items", items, ["provider", "modality"], registry=None)
        self._dialect = DIALECTS[address.dialect]
        given = settings.encoder_key
        self._key = check_key("RECO_ENCODER_KEY", None if given is None else given.get_secret_value())
        self._patience_s, self._timeout_s = settings.encoder_patience_s, settings.encoder_timeout_s
        with usable_environment():
            self._http = httpx.Client(
                timeout=settings.encoder_timeout_s,
                transport=transport,
                headers={"authorization": f"Bearer {self._key}"} if self._key else {},
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=address.parallel),
            )

    def embed(self, items: Sequence[bytes], modality: Modality, dimension: int | None = None) -> Vectors:
        """Embed texts in UTF-8 or image files to (B, D) float32, unit-norm.

        Args:
            items: B texts or files.
            modality: modality of the items.
            dimension: expected D; None accepts any.

        Raises:
            InputError: the API refuses an item.
            SessionOverloaded: the rate limit of the API is reached, also after the last attempt.
            SessionUnavailable: the API cannot be reached, or is down.
            SessionTimeout: the API does not answer in time.
            SessionError: the API refuses the key, or does not return vectors.
        """
        limit = self.address.batch or (self._dialect.texts if modality == "text" else IMAGES)
        parts = list(_split(items, limit))
        call = partial(self._embed, modality=modality, dimension=dimension)
        if len(parts) == 1:
            return call(parts[0])
        with ThreadPoolExecutor(min(len(parts), self.address.parallel), "reco-api") as pool:
            return np.concatenate(list(pool.map(call, parts)))

    def served_model(self) -> ServedModel | None:
        """Return the model of another `reco serve`; None for any other API.

        Raises:
            SessionError: as in :meth:`embed`.
        """
        if self._dialect.models is None:
            return None
        url = re.sub(r"(?<!/)/v1(/embeddings)?$", "", self.address.url) + self._dialect.models
        answer = self._send("GET", url, None)
        try:
            rows = answer["data"]
            model = next((row for row in rows if self.address.model in (None, row["id"])), rows[0])
            fingerprint = Fingerprint(str(model["name"]), str(model["fingerprint"]), int(model["dimension"]))
            coverage = model.get("coverage")
            return ServedModel(fingerprint, int(model["k"]), None if coverage is None else float(coverage))
        except (KeyError, IndexError, TypeError, ValueError):
            raise SessionError(
                f"{url} is not the model list of a `reco serve`: choose another dialect in RECO_MODEL"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _embed(self, items: Sequence[bytes], modality: Modality, dimension: int | None) -> Vectors:
        answer = self._send("POST", self._dialect.url(self.address), self._dialect.write(self.address, items, modality))
        vectors = self._read(answer, modality, len(items), dimension)
        self.items.labels(self.address.host, modality).inc(len(items))
        return vectors

    def _send(self, method: str, url: str, body: Any) -> Any:
        """Return the JSON of an answer; temporary failures are repeated within ``encoder_patience_s``."""
        tenacity = self._tenacity
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retry),
            wait=self._pause_s,
            stop=tenacity.stop_before_delay(self._patience_s),
            before_sleep=lambda _: self._count("repeated"),
            reraise=True,
        )
        try:
            return retrying(self._send_once, method, url, body)
        except _Retry as last:
            self._count("failed")
            raise last.error from None
        except (InputError, SessionError) as error:
            self._count("refused" if isinstance(error, InputError) else "failed")
            raise

    def _count(self, outcome: str) -> None:
        self.calls.labels(self.address.host, outcome).inc()

    def _pause_s(self, state: tenacity.RetryCallState) -> float:
        """Return the API's Retry-After if it is more than 0, else an exponential pause."""
        error = state.outcome.exception() if state.outcome else None
        backing_off: float = self._tenacity.wait_random_exponential(_FIRST_PAUSE_S, _MAX_PAUSE_S)(state)
        return getattr(error, "after_s", None) or backing_off

    def _send_once(self, method: str, url: str, body: Any) -> Any:
        httpx = self._httpx
        try:
            response = self._http.request(method, url, json=body)
        except httpx.TimeoutException:
            message = (
                f"the encoder at {url} did not answer within {self._timeout_s:g} s. Raise encoder_timeout_s, or send "
                "fewer items per request (batch=N in the address)"
            )
            raise _Retry(SessionTimeout(message)) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            reason = self._clean(str(error)) or type(error).__name__
            message = f"the encoder at {url} cannot be reached ({reason}). Is the address right?{proxy_of(url)}"
            raise _Retry(SessionUnavailable(message)) from None
        if not response.is_success:
            raise self._error_of(url, response)
        try:
            answer = response.json()
        except ValueError:
            raise SessionError(
                f"the encoder at {url} answered {response.status_code} without JSON: {self._clean(response.text)!r}. "
                "Is this the address of its API?"
            ) from None
        self._count("answered")
        return answer

    def _error_of(self, url: str, response: httpx.Response) -> Exception:
        status, reason = response.status_code, self._clean(_message(response))
        message = f"the encoder at {url} answered {status}: {reason}"
        if (kind := _RETRIED.get(status)) is not None:
            wait = response.headers.get("retry-after", "").strip()
            after = float(wait) if wait.isdecimal() else None
            if status == 429:
                message += ". Its rate limit is reached: send less (parallel=1 in the address), or raise the limit"
            if after is not None and after > self._patience_s:
                message += f". Its Retry-After is {after:g} s, and encoder_patience_s is {self._patience_s:g}"
            return _Retry(kind(message), after)
        if status in (401, 403):
            return SessionError(f"{message}. The key is {'wrong' if self._key else 'missing'}: set RECO_ENCODER_KEY")
        if status in _INVALID_INPUT:
            return InputError(f"the API that encodes refused it ({status}): {reason}")  # clients of a service read it
        return SessionError(
            f"{message}. Check address, dialect ({self.address.dialect}) and model ({self.address.model})"
        )

    def _clean(self, text: str) -> str:
        """Return an answer of the API in one line, without the key."""
        line = " ".join(text.split())
        return (line.replace(self._key, "…") if self._key else line)[:_MESSAGE_CHARS]

    def _read(self, answer: Any, modality: Modality, count: int, dimension: int | None) -> Vectors:
        """Read and check the vectors (B, D) of an answer."""
        who = f"the encoder at {self.address.host}"
        try:
            rows = self._dialect.read(answer)
            vectors: Vectors = np.stack([to_row(row) for row in rows])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SessionError(
                f"{who} did not answer in the dialect {self.address.dialect} ({type(error).__name__}: {error}): "
                f"{self._clean(str(answer))!r}. Does it have another dialect?"
            ) from None
        if len(vectors) != count:
            raise SessionError(f"{who} returned {len(vectors)} vectors for {count} {modality}s")
        try:
            return check_vectors(vectors, dimension or vectors.shape[-1], f"vectors of {who}")
        except VectorError as error:
            raise SessionError(f"{error}; has its model changed?") from None


def _split(items: Sequence[bytes], limit: int) -> Iterator[Sequence[bytes]]:
    """Split items into parts of at most ``limit`` items and 8 MB; a single larger item is a part."""
    start = size = 0
    for position, item in enumerate(items):
        if position > start and (position - start >= limit or size + len(item) > _BODY_BYTES):
            yield items[start:position]
            start, size = position, 0
        size += len(item)
    yield items[start:]


def _message(response: httpx.Response) -> str:
    """Return the message of an error, from the field that the API uses for it."""
    try:
        message = response.json()
    except ValueError:
        return str(response.text)
    for _ in range(3):
        if isinstance(message, dict):
            message = next(
                (message[name] for name in ("error", "detail", "message") if message.get(name)), str(message)
            )
    return str(message)


FIXED_TEXTS = (
    "a photo of a red fox in the snow",
    "two wooden chairs beside a round table",
    "stainless steel water bottle, 750 ml",
    "an aerial view of a harbour at night",
    "the quick brown fox jumps over the lazy dog",
    "ein Fahrrad lehnt an einer Mauer",
)


def measure(client: ApiClient) -> tuple[Fingerprint, ServedModel | None]:
    """Return the fingerprint of an API, from its vectors of fixed inputs; another `reco serve` reports its own.

    Raises:
        ConfigError: the API refuses a fixed text, so the model or the dimensions are wrong.
        SessionError: as in :meth:`ApiClient.embed`.
    """
    if (served := client.served_model()) is not None:
        return served.fingerprint, served
    try:
        return _fingerprint(client), None
    except InputError as error:
        raise ConfigError(f"{error}. Check model and dimensions in RECO_MODEL ({client.address})") from None


def describe_change(client: ApiClient, expected: Fingerprint) -> str | None:
    """Describe how the model of an API differs from the expected one; None if it is the same model.

    Raises:
        SessionError: the call to the API fails.
    """
    if (served := client.served_model()) is not None:
        current = served.fingerprint
        return None if are_one_encoder(current, expected) else f"it serves {current} now, and served {expected}"
    current = _fingerprint(client)
    if current.dimension != expected.dimension:
        return f"its vectors have {current.dimension} dimensions, and had {expected.dimension}"
    return sketch_change(expected.digest, current.digest)


def _fingerprint(client: ApiClient) -> Fingerprint:
    address = client.address
    texts = client.embed([text.encode() for text in FIXED_TEXTS], "text")
    dimension = texts.shape[1]
    images: Vectors = np.empty((0, dimension), np.float32)
    if address.images:
        images = client.embed(_pictures(), "image", dimension)
    return Fingerprint(address.name, make_sketch(address.model or address.dialect, texts, images), dimension)


@cache
def _pictures() -> tuple[bytes, ...]:
    """Return two pictures as PNG files."""
    from PIL import Image

    files = []
    for grey in (Image.radial_gradient("L"), Image.linear_gradient("L")):
        out = io.BytesIO()
        Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180))).resize((64, 64)).save(out, "PNG")
        files.append(out.getvalue())
    return tuple(files)
