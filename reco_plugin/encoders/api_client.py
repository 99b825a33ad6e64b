"""Calls of an API that encodes: in parts of its size, tried again where that helps, checked, and counted.

Nobody outside can take the checksum of a model behind an API. Its vectors of fixed inputs, though, stay the same but
for rounding, and another model's are elsewhere. They are kept in the fingerprint as a sketch: coordinates along a few
fixed random directions, from which the distance of two measurements is estimated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import Counter

from ..errors import (
    InputError,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    VectorError,
    importing,
)
from ..proxies import proxy_of, usable_environment
from ..settings import Settings
from ..types import Fingerprint, Modality, Vectors
from ..values import check_key, check_vectors
from .api_dialects import DIALECTS, IMAGES, ApiAddress, to_row

if TYPE_CHECKING:
    import httpx
    import tenacity
import io
from functools import cache

from ..errors import ConfigError
from ..fingerprint import are_one_encoder, make_sketch, sketch_change

_BODY_BYTES = 8_000_000  # of the items of one request; most providers refuse 10 to 20 MB
_SHOWN = 300  # characters of an answer in a message
_LONGEST_S, _FIRST_S = 10.0, 0.5  # pauses before a call is tried again
_PASSING = {429: SessionOverloaded, 408: SessionTimeout, 504: SessionTimeout} | dict.fromkeys(
    (409, 425, 500, 502, 503, 529), SessionUnavailable
)
"""Answers after which a call is tried again, and the error in the end."""
_REFUSED = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class ServedModel:
    """The model of another `reco serve`, as that describes it."""

    fingerprint: Fingerprint
    k: int  # neighbours per query, unless a request says otherwise
    coverage: float | None  # likewise


class _Again(Exception):
    """An answer after which the request may be repeated."""

    def __init__(self, error: RecoError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


class ApiClient:
    """Calls one API; safe to use from several threads.

    Args:
        address: of the API.
        settings: key, timeouts and patience.
        transport: of httpx, instead of the network.

    Raises:
        MissingExtra: httpx or tenacity is not installed.
    """

    def __init__(self, address: ApiAddress, settings: Settings, transport: Any = None) -> None:
        with importing(None, "api", "an encoder that is an API"):
            import httpx
            import tenacity
        self.address, self._httpx, self._tenacity = address, httpx, tenacity
        calls, items = "requests to the API that encodes, by their end", "texts and images that the API encoded"
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
        """Vectors (B, D) float32, unit-norm, of texts in UTF-8 or of image files.

        Args:
            items: B of them.
            modality: what they are.
            dimension: D, where it is known.

        Raises:
            InputError: the API refuses an item.
            SessionOverloaded: the API's limit is reached, also after the last try.
            SessionUnavailable: it cannot be reached, or is down.
            SessionTimeout: it does not answer in time.
            SessionError: it refuses the key, or answers something else than vectors.
        """
        most = self.address.batch or (self._dialect.texts if modality == "text" else IMAGES)
        parts = list(_cut(items, most))
        call = partial(self._embed, modality=modality, dimension=dimension)
        if len(parts) == 1:
            return call(parts[0])
        with ThreadPoolExecutor(min(len(parts), self.address.parallel), "reco-api") as pool:
            return np.concatenate(list(pool.map(call, parts)))

    def served_model(self) -> ServedModel | None:
        """The model of another `reco serve`; None of any other API.

        Raises:
            SessionError: as in :meth:`embed`.
        """
        if self._dialect.models is None:
            return None
        url = re.sub(r"(?<!/)/v1(/embeddings)?$", "", self.address.url) + self._dialect.models
        answer = self._send("GET", url, None)
        try:
            rows = answer["data"]
            one = next((row for row in rows if self.address.model in (None, row["id"])), rows[0])
            made_by = Fingerprint(str(one["name"]), str(one["fingerprint"]), int(one["dimension"]))
            coverage = one.get("coverage")
            return ServedModel(made_by, int(one["k"]), None if coverage is None else float(coverage))
        except (KeyError, IndexError, TypeError, ValueError):
            raise SessionError(
                f"{url} is no model list of a `reco serve`: name another dialect in RECO_MODEL"
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
        """The JSON of an answer; failures that may pass are tried again, as long as patience lasts."""
        tenacity = self._tenacity
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._pause_s,
            stop=tenacity.stop_before_delay(self._patience_s),
            before_sleep=lambda _: self._ended("repeated"),
            reraise=True,
        )
        try:
            return retrying(self._send_once, method, url, body)
        except _Again as last:
            self._ended("failed")
            raise last.error from None
        except (InputError, SessionError) as error:
            self._ended("refused" if isinstance(error, InputError) else "failed")
            raise

    def _ended(self, outcome: str) -> None:
        self.calls.labels(self.address.host, outcome).inc()

    def _pause_s(self, state: tenacity.RetryCallState) -> float:
        """What the API names, else twice as long each time; never not at all, as Retry-After: 0 would be."""
        error = state.outcome.exception() if state.outcome else None
        backing_off: float = self._tenacity.wait_random_exponential(_FIRST_S, _LONGEST_S)(state)
        return getattr(error, "after_s", None) or backing_off

    def _send_once(self, method: str, url: str, body: Any) -> Any:
        httpx = self._httpx
        try:
            response = self._http.request(method, url, json=body)
        except httpx.TimeoutException:
            more = "Raise encoder_timeout_s, or send less at once (batch=N in the address)"
            late = f"the encoder at {url} did not answer within {self._timeout_s:g} s. {more}"
            raise _Again(SessionTimeout(late)) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            why = self._clean(str(error)) or type(error).__name__
            away = f"the encoder at {url} cannot be reached ({why}). Is the address right?{proxy_of(url)}"
            raise _Again(SessionUnavailable(away)) from None
        if not response.is_success:
            raise self._refusal(url, response)
        try:
            answer = response.json()
        except ValueError:
            raise SessionError(
                f"the encoder at {url} answered {response.status_code} without JSON: {self._clean(response.text)!r}. "
                "Is this the address of its API?"
            ) from None
        self._ended("answered")
        return answer

    def _refusal(self, url: str, response: httpx.Response) -> Exception:
        status, reason = response.status_code, self._clean(_message(response))
        message = f"the encoder at {url} answered {status}: {reason}"
        if (kind := _PASSING.get(status)) is not None:
            wait = response.headers.get("retry-after", "").strip()
            after = float(wait) if wait.isdecimal() else None
            if status == 429:
                message += ". Its limit is reached: send less (parallel=1 in the address), or raise the limit"
            if after is not None and after > self._patience_s:
                message += f". It asks to wait {after:g} s, and encoder_patience_s is {self._patience_s:g}"
            return _Again(kind(message), after)
        if status in (401, 403):
            return SessionError(f"{message}. The key is {'wrong' if self._key else 'missing'}: set RECO_ENCODER_KEY")
        if status in _REFUSED:
            return InputError(f"the API that encodes refused it ({status}): {reason}")  # callers of a service read it
        known = f"dialect ({self.address.dialect}) and model ({self.address.model})"
        return SessionError(f"{message}. Check address, {known}")

    def _clean(self, text: str) -> str:
        """An answer of the API, in a line, without its key."""
        line = " ".join(text.split())
        return (line.replace(self._key, "…") if self._key else line)[:_SHOWN]

    def _read(self, answer: Any, modality: Modality, count: int, dimension: int | None) -> Vectors:
        """The vectors (B, D) of an answer, checked."""
        who = f"the encoder at {self.address.host}"
        try:
            rows = self._dialect.read(answer)
            vectors: Vectors = np.stack([to_row(row) for row in rows])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SessionError(
                f"{who} answered no vectors as {self.address.dialect} does ({type(error).__name__}: {error}): "
                f"{self._clean(str(answer))!r}. Does it speak another dialect?"
            ) from None
        if len(vectors) != count:
            raise SessionError(f"{who} answered {len(vectors)} vectors for {count} {modality}s")
        try:
            return check_vectors(vectors, dimension or vectors.shape[-1], f"vectors of {who}")
        except VectorError as error:
            raise SessionError(f"{error}; has its model changed?") from None


def _cut(items: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """Items in parts of at most so many, and so many bytes unless it is one item."""
    start = size = 0
    for place, item in enumerate(items):
        if place > start and (place - start >= most or size + len(item) > _BODY_BYTES):
            yield items[start:place]
            start, size = place, 0
        size += len(item)
    yield items[start:]


def _message(response: httpx.Response) -> str:
    """The reason that an API gives for a failure, in whichever field it has for that."""
    try:
        found = response.json()
    except ValueError:
        return str(response.text)
    for _ in range(3):
        if isinstance(found, dict):
            found = next((found[name] for name in ("error", "detail", "message") if found.get(name)), str(found))
    return str(found)


TEXTS = (
    "a photo of a red fox in the snow",
    "two wooden chairs beside a round table",
    "stainless steel water bottle, 750 ml",
    "an aerial view of a harbour at night",
    "the quick brown fox jumps over the lazy dog",
    "ein Fahrrad lehnt an einer Mauer",
)


def measure(client: ApiClient) -> tuple[Fingerprint, ServedModel | None]:
    """Send an API the fixed inputs; another `reco serve` names its own fingerprint.

    Raises:
        ConfigError: it refuses the simplest text: model, dialect or dimensions are wrong.
        SessionError: as in :meth:`ApiClient.embed`.
    """
    if (served := client.served_model()) is not None:
        return served.fingerprint, served
    try:
        return _fingerprint(client), None
    except InputError as error:
        raise ConfigError(f"{error}. Check model and dimensions in RECO_MODEL ({client.address})") from None


def describe_change(client: ApiClient, expected: Fingerprint) -> str | None:
    """What is not as it was when the API was measured; None if it is the same model.

    Raises:
        SessionError: the API cannot be called.
    """
    if (served := client.served_model()) is not None:
        found = served.fingerprint
        return None if are_one_encoder(found, expected) else f"it serves {found} now, and served {expected}"
    found = _fingerprint(client)
    if found.dimension != expected.dimension:
        return f"its vectors have {found.dimension} dimensions, and had {expected.dimension}"
    return sketch_change(expected.digest, found.digest)


def _fingerprint(client: ApiClient) -> Fingerprint:
    address = client.address
    texts = client.embed([text.encode() for text in TEXTS], "text")
    dimension = texts.shape[1]
    images: Vectors = np.empty((0, dimension), np.float32)
    if address.images:
        images = client.embed(_pictures(), "image", dimension)
    return Fingerprint(address.name, make_sketch(address.model or address.dialect, texts, images), dimension)


@cache
def _pictures() -> tuple[bytes, ...]:
    """Two pictures as PNG files."""
    from PIL import Image

    files = []
    for grey in (Image.radial_gradient("L"), Image.linear_gradient("L")):
        out = io.BytesIO()
        Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180))).resize((64, 64)).save(out, "PNG")
        files.append(out.getvalue())
    return tuple(files)
