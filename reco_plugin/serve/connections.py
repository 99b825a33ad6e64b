"""Timeouts and a limit of connections: uvicorn alone waits forever for headers, a body, or a client that reads.

And their end while the service stops. Closing a kept connection loses the request that its client sends at that moment,
so none is closed before it was told: it asks once more, and reads ``connection: close`` in the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import select
import socket as socket_module
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .door import Door, DoorAnswer
from .failures import Failure
from .logs import LOGGER
from .routes import LEFT, LOCAL, PROBES, THROTTLED, WHOLE, drop_second_root, shape_for_all
from .settings import ServeSettings
from .timeouts import Timeouts

log = logging.getLogger(LOGGER)
PROBE_CONNECTIONS = 384
"""Connections beyond the setting, for probes only: a busy service is not dead."""
_PROBES = tuple(f"GET {path} ".encode() for path in PROBES)
_HEAD_BYTES = 16_384
_END = re.compile(rb"\r?\n\r?\n")
_OFFER = re.compile(rb"\r?\n(upgrade|http2-settings)[ \t]*:[^\r\n]*", re.IGNORECASE)
_FULL = "the service has too many connections (max_connections): try again later"
_RETRY_S = 1
_CLOSES = (b"connection", b"close")
_LOG_EVERY_S = 10.0
_AHEAD = 64  # requests that may wait behind the one that is answered, each of which takes memory
_CROWDED_S = 5.0  # that a connection is kept while half of all are open, so that idle ones leave room for others
_LAST_S = 0.2  # that a connection without a request stays after the last moment, for one that is on its way


@dataclass
class _Service:
    """What all connections of a service share."""

    limits: ServeSettings
    door: Door | None
    logged_at: float = -_LOG_EVERY_S
    stopping: bool = False
    beyond: dict[_Connection, None] = field(default_factory=dict)  # the setting, for probes; oldest first
    asked_at: float = -_LOG_EVERY_S  # when the latest request came, but for probes
    heads: Timeouts[_Connection] = field(init=False)
    bodies: Timeouts[_Connection] = field(init=False)
    answers: Timeouts[_Connection] = field(init=False)  # that are to be taken

    def __post_init__(self) -> None:
        head_s, body_s = self.limits.head_timeout_s, self.limits.body_timeout_s
        self.heads, self.bodies = (Timeouts(seconds, _Connection.give_up) for seconds in (head_s, body_s))
        self.answers = Timeouts(body_s, _Connection.abort)


class _Connection(HttpToolsProtocol):
    """A connection within the limits of a service; :func:`make_protocol` makes its class."""

    service: ClassVar[_Service]  # an object, since whoever sets a class's own attribute slows each look at any of them

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with suppress(AttributeError):  # a length given in two ways is read as by its chunks, see `_two_lengths`
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_chunked_length=True)
        self.limits = self.service.limits
        self._awaited: Literal["head", "body", ""] = "head"  # of a request, from the client
        self._feeds, self._begins = False, False  # whether bytes are parsed, and whether another part was begun by them
        self._begun = b""  # of a head whose end is not here
        self._head_bytes = 0  # of the fields of the head that is read
        self._unread = 0  # bytes since the latest part of a body
        self._is_full = False  # whether it reads no other request
        self._only_probes = False
        self._held: tuple[RequestResponseCycle, Any] | None = None  # that begins when what came is parsed
        self._idle_s = float(self.timeout_keep_alive)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, LEFT: self.has_left}
        if is_unix(transport.get_extra_info("socket")):
            self.app_state[LOCAL] = True
        self._only_probes = len(self.connections) > self.limits.max_connections
        if len(self.connections) > self.limits.max_connections + PROBE_CONNECTIONS:
            self._tell()
            beyond = self.service.beyond
            if not beyond:
                transport.abort()
                return
            oldest = next(iter(beyond))  # no probe: those ask at once, and their connections close after the answer
            del beyond[oldest]
            oldest.transport.abort()
        if self._only_probes:
            self.service.beyond[self] = None
        self._await("head")

    def data_received(self, data: bytes) -> None:
        if self._only_probes and self._awaited == "head" and not _may_probe(self._begun + data):
            self._tell()
            self.transport.write(_refusal())
            self.transport.close()
            return
        if self._is_full:
            return
        if self._awaited != "body":
            data = self._begun + data
            end = _END.search(data)
            if (end.start() if end else len(data)) > _HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")
                return
            self._begun = b"" if end else data
            if end is None:
                self._unset_keepalive_if_required()
                if not self._awaited:
                    self._await("head")
                return
            if b"pgrade" in data[: end.start()].lower():
                # Java's client offers HTTP/2 in each request, and takes HTTP/1.1, too; the parser would read no body
                data = _OFFER.sub(b"", data[: end.start()]) + data[end.start() :]
            if not self._awaited and self.is_idle:  # the parser skips empty lines, which begin no request
                self._await("head")
        self._unread += len(data)
        self._feeds = True
        super().data_received(data)
        self._feeds = False
        if self._held is not None:
            self._begin(*self._held)
        if self._begins:  # of a request that is whole, nothing is waited for
            self._await(self._awaited)
        if self._awaited == "body" and self._unread > _HEAD_BYTES:  # a trailer without end
            self.send_400_response("What follows the body is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._await("head")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaited == "head":  # what follows a body must not be taken for a header (RFC 9110, 6.5.1)
            super().on_header(name, value)
            self._head_bytes += len(name) + len(value) + len(":\r\n")
            if self._head_bytes + len(self.url) > _HEAD_BYTES:  # begun behind a request, or behind empty lines
                raise OverflowError

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _AHEAD:
            self._is_full = True
            self._close_after()
            raise OverflowError  # ends the parser
        _refuse_unclear(self.headers)
        super().on_headers_complete()
        self._unread = 0
        self._await("body")
        drop_second_root(cast("Scope", self.cycle.scope))
        if self.cycle.scope["path"].removeprefix(self.root_path) not in PROBES:
            self.service.asked_at = time.monotonic()
        if self.service.stopping or self._only_probes or _two_lengths(self.cycle.scope["headers"]):
            self._close_after()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._feeds:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request, at once where that is simple."""
        door, self._held = self.service.door, None
        # a client that takes no answers is waited for, which the usual way does
        is_simple = not (cycle.more_body or self.flow.write_paused or self.transport.is_closing())
        answer = door.answer(cast("Scope", cycle.scope)) if door is not None and is_simple else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.keep_alive = cycle.keep_alive and _CLOSES not in cycle.default_headers
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()  # else it stays until the next request
        self.transport.write(_written(answer, cycle.default_headers, closes=not cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._await("")
        super().on_message_complete()
        self.cycle.scope["state"][WHOLE] = True

    def send_400_response(self, msg: str) -> None:
        if not self._is_full:  # then those before are answered
            super().send_400_response(msg)
            self._hurry()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._hurry()

    def _unsupported_upgrade_warning(self) -> None:
        """Read nothing more: what follows is of another protocol."""
        self._is_full, self.cycle.keep_alive = True, False
        if self.is_idle:
            self.transport.close()

    @classmethod
    def stop(cls, connections: Iterable[Any]) -> None:
        """Close each connection after its next answer, of those that are open and those that are made from now on."""
        cls.service.stopping = True
        for one in connections:
            if not one.is_idle:
                one._close_after()

    @property
    def is_idle(self) -> bool:
        """Whether it has no request that waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def has_left(self) -> bool:
        """Whether the client has closed it, also while nothing is read from it, as far as the system tells."""
        if self.transport.is_closing():
            return True
        if not hasattr(select, "poll"):
            return False
        look = select.poll()
        look.register(self.transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
        return bool(look.poll(0))

    def shutdown(self) -> None:
        type(self).stop([self])
        if self.is_idle:
            self.loop.call_later(_LAST_S, self._end)
        else:
            super().shutdown()

    def _end(self) -> None:
        """Close it, if no request has come; one that did has its answer closed after it."""
        if self.is_idle and not self.transport.is_closing():
            super().shutdown()

    def _close_after(self) -> None:
        """Say in the answer, if it is not begun, that the connection closes after it."""
        if _CLOSES not in self.cycle.default_headers:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSES]

    def on_response_complete(self) -> None:
        crowded = 2 * len(self.connections) > self.limits.max_connections
        self.timeout_keep_alive = min(self._idle_s, _CROWDED_S) if crowded else self._idle_s  # type: ignore[assignment]
        super().on_response_complete()
        if not self.flow.write_paused:
            self._is_taken()
        if self._awaited == "body":  # the rest of a dropped body has its own time limit
            self._await("body")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hurry()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._is_taken()

    def _is_taken(self) -> None:
        """The client has taken an answer, but for what the system still sends."""
        self.service.answers.end(self)
        if self.transport.is_closing():  # which waits for what is still to be sent
            self._hurry()

    def _hurry(self) -> None:
        """End the connection, if the client does not take what is to be sent."""
        if self not in self.service.answers:  # else a client that takes a little now and then would hold one for ever
            self.service.answers.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        service = self.service
        service.beyond.pop(self, None)
        for limit in (service.heads, service.bodies, service.answers):
            limit.end(self)
        self._unset_keepalive_if_required()
        # each of these leads back to it, and Python's collector looks rarely: what is left for it stays for long
        self.pipeline.clear()
        self.app_state = {}
        self.scope = self.cycle = None  # type: ignore[assignment]

    def _await(self, part: Literal["head", "body", ""]) -> None:
        """Begin to wait for the next part of a request, for as long as it may take; nothing: for no part."""
        self._awaited, self._begins = part, self._feeds
        if self._feeds:  # then the last part is waited for
            return
        heads, bodies = self.service.heads, self.service.bodies
        (heads.begin if part == "head" else heads.end)(self)
        (bodies.begin if part == "body" else bodies.end)(self)

    @classmethod
    def answer_at_once(cls, begun: bytes, waiting: int, state: ServerState) -> bytes | None:
        """The answer to what came of a request, before a connection is made for it; None: one has to be made.

        Args:
            begun: the first bytes that came.
            waiting: requests that wait to be looked at, this one among them.
            state: the server's.
        """
        service = cls.service
        door, is_probe = service.door, begun.startswith(b"GET ")
        scope = _read_whole(begun, service.limits.root_path) if door and (is_probe or door.is_full) else None
        if door and scope and (answer := door.answer(scope)):
            if not is_probe:
                service.asked_at = time.monotonic()
            return _written(answer, state.default_headers, closes=True)
        if len(state.connections) + waiting > service.limits.max_connections and not _may_probe(begun):
            cls._tell()
            return _refusal()
        return None

    @classmethod
    def _tell(cls) -> None:
        service = cls.service
        if (now := time.monotonic()) >= service.logged_at + _LOG_EVERY_S:  # refusals come in hundreds
            service.logged_at = now
            log.warning("connections are refused: %d are open (max_connections)", service.limits.max_connections)

    def abort(self) -> None:
        """End it at once: what is to be sent was not taken in time."""
        self.transport.abort()

    def give_up(self) -> None:
        """End it, unless a request waits for its answer: what was awaited did not come in time."""
        if self.is_idle:
            self.transport.close()
            self._hurry()
        elif self._awaited == "head":  # sent behind a request that is not answered yet
            self._await("head")
        # else the application answers 408, in the dialect's shape


def make_protocol(settings: ServeSettings, door: Door | None = None) -> type[HttpToolsProtocol]:
    """Make uvicorn's protocol class with the limits of the settings; None: the application answers all."""
    return type("Connection", (_Connection,), {"service": _Service(settings, door)})


class _Whole:
    """What the parser finds in the bytes of a request."""

    def __init__(self) -> None:
        self.url, self.headers = b"", list[tuple[bytes, bytes]]()
        self.begun, self.whole = 0, 0  # requests

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.whole += 1


def _read_whole(begun: bytes, root: str) -> Scope | None:
    """The scope of a request that came in one piece; None where it is not whole, not alone, or needs a closer look."""
    found = _Whole()
    parser = HttpRequestParser(found)
    try:
        parser.feed_data(begun)
        # with half of another one behind it, what was found is of both
        path = parse_url(found.url).path if found.begun == found.whole == 1 else None
    except (HttpParserError, HttpParserUpgrade):
        return None
    # a URL may have no path: http://host
    if path is None or b"%" in path or not {b"transfer-encoding", b"expect"}.isdisjoint(dict(found.headers)):
        return None
    if len([name for name, _ in found.headers if name == b"host"]) > 1:
        return None
    method = parser.get_method().decode("ascii")
    whole = root + path.decode("ascii")
    return {"type": "http", "method": method, "path": whole, "root_path": root, "headers": found.headers}


def _written(answer: DoorAnswer, default: Iterable[tuple[bytes, bytes]], *, closes: bool) -> bytes:
    """An answer as it is sent."""
    fields = [*default, *answer.fields]
    if closes and _CLOSES not in fields:
        fields.append(_CLOSES)
    return b"".join([STATUS_LINE[answer.status], *(b"%s: %s\r\n" % one for one in fields), b"\r\n", answer.body])


def _may_probe(begun: bytes) -> bool:
    """Whether what came of a request may be of a probe."""
    return any(probe.startswith(begun[: len(probe)]) for probe in _PROBES)


def _two_lengths(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request gives the length of its body in two ways: a proxy before us may see its end elsewhere.

    What follows on such a connection may be another caller's (RFC 9112, 6.1), so nothing more is read from it.
    """
    return {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}


def _refuse_unclear(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a head that two programs may read in two ways, of those that the parser takes.

    Raises:
        ValueError: two hosts, or a body in a coding that would end with the connection alone.
    """
    of = [(name, value.strip().lower()) for name, value in headers if name in (b"host", b"transfer-encoding")]
    if len(of) > len(dict(of)) or dict(of).get(b"transfer-encoding", b"chunked") != b"chunked":
        raise ValueError


def is_unix(socket: Any) -> bool:
    """Whether a socket is a file of this machine."""
    return socket is not None and socket.family == getattr(socket_module, "AF_UNIX", None)


@cache
def _refusal() -> bytes:
    """The answer to a connection beyond the limit, before its request is read."""
    body = json.dumps(shape_for_all(Failure(503, "too_many_connections", _FULL))).encode()
    lines = [
        "HTTP/1.1 503 Service Unavailable",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"retry-after: {_RETRY_S}",
        *(f"{name}: {value}" for name, value in THROTTLED.items()),
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
