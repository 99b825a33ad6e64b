"""Calls of an API that encodes: in parts of its size, again where it says so, checked, and counted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..config import Settings, key_of_encoder
from ..counters import Tally
from ..errors import (
    FORKED,
    InputError,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    importing,
)
from ..proxies import proxy_of, usable_environment
from ..types import Caution, Fingerprint, Modality, Vectors
from ..values import NORM_TOLERANCE
from .address import ApiAddress
from .dialects import DIALECTS, IMAGES, Dialect, to_row

if TYPE_CHECKING:
    import httpx
    import tenacity

_EXTRA = "api"
_BODY_BYTES = 8_000_000  # of the items of one request; most providers refuse 10 to 20 MB
_SHOWN = 300
_LONGEST_S, _FIRST_S = 10.0, 0.5
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({400, 413, 415, 422})
_MASKED = re.compile(r"\b(sk-|pa-|jina_|hf_|AKIA|Bearer (?=\S*[\d*]))[A-Za-z0-9*._~+/=-]{8,}")
"""Keys as providers repeat them in what they answer to a wrong one."""


@dataclass
class Counted:
    """What was asked of an API, which has its price.

    Attributes:
        calls: requests, by their end: answered, refused, failed, or repeated.
        items: texts and images that were answered, by modality.
        tokens: as the provider counts them, by its name for them.
    """

    calls: Tally = field(default_factory=Tally)
    items: Tally = field(default_factory=Tally)
    tokens: Tally = field(default_factory=Tally)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """JSON-like, by the names of the attributes."""
        return {name: tally.to_dict() for name, tally in vars(self).items()}


@dataclass(frozen=True)
class Told:
    """What a `reco serve` tells of its model."""

    fingerprint: Fingerprint
    k: int  # neighbours per query, unless a request says otherwise
    caution: Caution  # likewise
    matryoshka: tuple[int, ...] = ()  # dimensions that its vectors may be cut to


class _Again(Exception):
    """An answer after which the request may be repeated."""

    def __init__(self, error: RecoError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


class ApiClient:
    """Asks one API; safe to use from several threads.

    Args:
        address: of the API.
        settings: key, timeouts and patience.
        transport: of httpx, instead of the network.

    Raises:
        MissingExtra: httpx or tenacity is not installed.
    """

    def __init__(self, address: ApiAddress, settings: Settings, transport: Any = None) -> None:
        with importing(None, _EXTRA, "an encoder that is an API"):
            import httpx
            import tenacity
        self.address = address
        self.counted = Counted()
        self._httpx, self._tenacity = httpx, tenacity
        self._dialect: Dialect = DIALECTS[address.dialect]
        self._key = key_of_encoder(settings, address.key_variables)
        self._patience_s, self._timeout_s = settings.encoder_patience_s, settings.encoder_timeout_s
        self._process = os.getpid()
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
            SessionOverloaded: it still says that it is asked too much.
            SessionUnavailable: it cannot be reached, or is down.
            SessionTimeout: it does not answer in time.
            SessionError: it refuses the key, or answers something else than vectors.
        """
        if self._process != os.getpid():
            raise SessionError(f"the connection to {self.address.host} {FORKED}")
        parts = list(_cut(items, self._size(modality)))
        ask = partial(self._ask, modality=modality, dimension=dimension)
        if len(parts) == 1:
            return ask(parts[0])
        with ThreadPoolExecutor(min(len(parts), self.address.parallel), "reco-api") as pool:
            return np.concatenate(list(pool.map(ask, parts)))

    def get_identity(self) -> Told | None:
        """What another `reco serve` tells of itself; None of any other API.

        Raises:
            SessionError: as in :meth:`embed`.
        """
        path = self._dialect.get_identity
        if path is None:
            return None
        url = re.sub(r"(?<!/)/v1(/embeddings)?$", "", self.address.url) + path
        answer = self._send("GET", url, None)
        try:
            rows = answer["data"]
            one = next((row for row in rows if self.address.model in (None, row["id"])), rows[0])
            made_by = Fingerprint(str(one["name"]), str(one["fingerprint"]), int(one["dimension"]))
            caution = one["caution"]
            said: Any = caution if caution in get_args(Caution) else "balanced"
            return Told(made_by, int(one["k"]), said, tuple(map(int, one.get("matryoshka", ()))))
        except (KeyError, IndexError, TypeError, ValueError):
            raise SessionError(
                f"{url} is no model list of a `reco serve`: name another dialect in RECO_ENCODER"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _size(self, modality: Modality) -> int:
        if modality == "text":
            return self.address.batch or self._dialect.texts
        return 1 if self.address.images == "messages" else self.address.batch or IMAGES

    def _ask(self, items: Sequence[bytes], modality: Modality, dimension: int | None) -> Vectors:
        url = self._dialect.path(self.address)
        answer = self._send("POST", url, self._dialect.write(self.address, items, modality))
        vectors = self._read(answer, modality, len(items), dimension)
        self.counted.items.add(modality, len(items))
        for name, tokens in _usage(answer):
            self.counted.tokens.add(name, tokens)
        return vectors

    def _send(self, method: str, url: str, body: Any) -> Any:
        """The JSON of an answer; failures that may pass are tried again, as long as patience lasts."""
        tenacity = self._tenacity
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._pause_s,
            stop=tenacity.stop_before_delay(self._patience_s),
            before_sleep=lambda _: self.counted.calls.add("repeated"),
            reraise=True,
        )
        try:
            return retrying(self._send_once, method, url, body)
        except _Again as last:
            self.counted.calls.add("failed")
            raise last.error from None
        except InputError:
            self.counted.calls.add("refused")
            raise
        except SessionError:
            self.counted.calls.add("failed")
            raise

    def _pause_s(self, state: tenacity.RetryCallState) -> float:
        """As long as the API asks for, else twice as long each time; never not at all, as Retry-After: 0 asks for."""
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "after_s", None)
        backing_off: float = self._tenacity.wait_random_exponential(_FIRST_S, _LONGEST_S)(state)
        return asked or backing_off

    def _send_once(self, method: str, url: str, body: Any) -> Any:
        httpx = self._httpx
        try:
            response = self._http.request(method, url, json=body)
        except httpx.TimeoutException:
            raise _Again(
                SessionTimeout(
                    f"the encoder at {url} did not answer within {self._timeout_s:g} s. Raise encoder_timeout_s, or "
                    "send less at once (batch=N in the address)"
                )
            ) from None
        except httpx.TransportError as error:
            said = self._clean(str(error)) or type(error).__name__
            raise _Again(
                SessionUnavailable(
                    f"the encoder at {url} cannot be reached ({said}). Is the address right?{proxy_of(url)}"
                )
            ) from None
        except httpx.InvalidURL as error:
            raise SessionError(f"the encoder's address {url} is no URL: {error}") from None
        if not response.is_success:
            raise self._refusal(url, response)
        try:
            answer = response.json()
        except ValueError:
            kind = response.headers.get("content-type", "nothing that says what it is").partition(";")[0]
            raise SessionError(
                f"the encoder at {url} answered {response.status_code} with {kind} in place of JSON: "
                f"{self._clean(response.text)!r}. Is this the address of its API?"
            ) from None
        self.counted.calls.add("answered")
        return answer

    def _refusal(self, url: str, response: httpx.Response) -> Exception:
        status, said = response.status_code, self._clean(_message(response))
        told = f"the encoder at {url} answered {status}: {said}"
        if status in _AGAIN:
            kind = (
                SessionOverloaded if status == 429 else SessionTimeout if status in (408, 504) else SessionUnavailable
            )
            said_s = response.headers.get("retry-after", "").strip()
            after = float(said_s) if said_s.isdecimal() else None
            waits = (
                ""
                if after is None or after <= self._patience_s
                else (f". It asks to wait {after:g} s, and encoder_patience_s is {self._patience_s:g}")
            )
            more = ". Its limit is reached: ask less (parallel=1 in the address), or raise it" if status == 429 else ""
            return _Again(kind(told + more + waits), after)
        if status in (401, 403):
            variables = " or ".join(("RECO_ENCODER_KEY", *self.address.key_variables))
            return SessionError(f"{told}. The key is {'wrong' if self._key else 'missing'}: set {variables}")
        if status in _REFUSED:
            return InputError(f"the API that encodes refused it ({status}): {said}")  # callers of a service read it
        if 300 <= status < 400:
            return SessionError(
                f"{told}. It points to {response.headers.get('location', 'nowhere')}: give that address"
            )
        return SessionError(f"{told}. Check address, dialect ({self.address.dialect}) and model ({self.address.model})")

    def _clean(self, text: str) -> str:
        """What the API said, in a line, without its key."""
        line = " ".join(text.split())
        line = line.replace(self._key, "…") if self._key else line
        return _MASKED.sub("…", line)[:_SHOWN]

    def _read(self, answer: Any, modality: Modality, count: int, dimension: int | None) -> Vectors:
        """The vectors (B, D) of an answer, checked."""
        who = f"the encoder at {self.address.host}"
        try:
            rows = self._dialect.read(answer, modality)
            vectors: Vectors = np.stack([to_row(row) for row in rows]) if rows else np.empty((0, 0), np.float32)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SessionError(
                f"{who} answered no vectors as {self.address.dialect} does ({type(error).__name__}: {error}): "
                f"{self._clean(str(answer))!r}. Does it speak another dialect?"
            ) from None
        if len(vectors) != count:
            raise SessionError(f"{who} answered {len(vectors)} vectors for {count} {modality}s")
        if vectors.ndim != 2 or (dimension is not None and vectors.shape[1] != dimension):
            raise SessionError(
                f"{who} answered vectors of shape {vectors.shape}, and ({count}, {dimension or 'D'}) is expected: its "
                "model is another one now, or its dimensions are"
            )
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors)).any(axis=1).sum())
            raise SessionError(f"{who} answered NaN or infinity for {bad} of {count} {modality}s")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not norms.all():
            raise SessionError(f"{who} answered zeros for {int((norms == 0).sum())} of {count} {modality}s")
        if not self.address.normalise and (off := np.abs(norms - 1) > NORM_TOLERANCE).any():
            raise SessionError(
                f"{who} answered a vector of norm {float(norms[off][0]):.3f}, and norm 1 is expected. If its vectors "
                "are meant for the cosine, add normalise=1 to the address"
            )
        return np.asarray(vectors / norms, np.float32)


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
    """What an API says of a failure, in whichever field it has for that."""
    try:
        said = response.json()
    except ValueError:
        return str(response.text)  # cut later: half of a key would not be found
    for _ in range(3):
        if not isinstance(said, dict):
            break
        said = next((said[name] for name in ("error", "detail", "message", "Message") if said.get(name)), str(said))
    return str(said)


def _usage(answer: Any) -> Iterator[tuple[str, int]]:
    """Tokens and pixels that the provider counts, by its names for them."""
    if not isinstance(answer, dict):
        return
    told = answer.get("usage") or (answer.get("meta") or {}).get("billed_units") or {}
    for name, value in told.items() if isinstance(told, dict) else ():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            yield name, int(value)
