"""One request, from its head to the last byte of its answer: what it holds, how long it may take, and when it leaves.

::

    reading   its body arrives: within `body_timeout_s`, `max_body_bytes`, and the memory for all bodies together
    working   it waits for a thread, or a thread works for it, until `deadline_s`; the answer's bytes are made there
    writing   its client takes the answer, piece by piece; each piece is given back when it is sent
    ended     all that it held is given back, once

A client that leaves ends it at once, in whichever state it is; what a thread still works on for it is counted until the
thread has seen that nobody waits (:func:`.pool.still_wanted`). Who owns it is :class:`Living`, the outermost layer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import STOPPING, Failure, Refused
from .logs import LOGGER, request_id
from .pool import Pool, Work
from .routes import LEFT, PROBES, WHOLE, routed
from .schemas import EMPTY_TEXTS, embeds_empty_texts, most_items
from .settings import ServeSettings
from .wire import SMALL, BodyRefused, is_form

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

    from .metrics import Metrics

T = TypeVar("T")
State: TypeAlias = Literal["reading", "working", "writing", "ended"]
log = logging.getLogger(LOGGER)
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_FOR_LARGE = 0.75
"""Of the memory for bodies: the rest is for small ones, which never wait, and for the one that is parsed."""
_RETRY_S = 1.0
_LEFT = Failure(499, "client_left", "the client closed the connection")
_LOOK_S = 0.1
_REFUSED = 400
_LINGER_S = 1.0  # wait for the next chunk of a body that is dropped


class Lives:
    """What all requests share: the memory that they may take together. Used from one event loop, but for `release`."""

    def __init__(self, settings: ServeSettings) -> None:
        self.limits = settings
        self.pending = 0
        """Bytes that requests hold now: bodies, what was parsed from them, and answers."""
        self.ids = random.Random()
        """Makes ids, which are no secrets: whoever asks the system for each gives up Python's lock."""
        self.turn = asyncio.Semaphore(1)
        """To parse a large body: one at a time, since parsing takes most of the memory; see :meth:`Life.turn`."""
        self._lock = threading.Lock()
        self._for_large = int(_FOR_LARGE * settings.max_pending_bytes)
        self._reserved = 0  # requests that have a reservation
        self._waiting: deque[tuple[int, Life, asyncio.Future[None]]] = deque()  # for one, the oldest first
        self._looking: asyncio.TimerHandle | None = None

    async def reserve(self, life: Life, count: int) -> None:
        """Wait until there is room for a large body and what is parsed from it, before anything of it is read.

        Its client waits, as for one that reads slowly: engines that send a hundred pictures at once do not lose those
        that are refused. Nobody waits who holds anything, and one alone always has room.

        Raises:
            BodyRefused: 429, there was none within the deadline.
            Refused: 499, its client left meanwhile.
        """
        waiting = min(count, self._for_large), life, asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append(waiting)
            self._let_in()
        self._look_for_leavers()
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                await waiting[2]
        except TimeoutError:
            raise self.refusal(self.pending) from None
        finally:
            with self._lock:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
                    self._let_in()  # who comes after it may need less

    def add(self, count: int) -> None:
        """Count bytes that a request takes."""
        with self._lock:
            self.pending += count

    def release(self, count: int, *, ends: bool = False) -> None:
        """Give bytes back, from any thread; ``ends``: a request with a reservation does."""
        with self._lock:
            self.pending -= count
            self._reserved -= ends
            if self._waiting:
                self._waiting[0][2].get_loop().call_soon_threadsafe(self._look)

    def refusal(self, others: int) -> BodyRefused:
        """What is answered where others leave too little."""
        message = f"other requests take {others:,} of {self.limits.max_pending_bytes:,} bytes (max_pending_bytes)"
        return BodyRefused(Failure(429, "too_many_bytes", f"{message}: try again later", retry_after_s=_RETRY_S))

    def _look(self) -> None:
        with self._lock:
            self._let_in()

    def _look_for_leavers(self) -> None:
        """Look now and then who has left of those that wait: nothing is read from them, so nobody says it."""
        if self._looking is not None or not self._waiting:
            return
        with self._lock:
            waiting = [*self._waiting]
        for _, life, freed in waiting:
            if life.has_left() and not freed.done():
                freed.set_exception(Refused(_LEFT))
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = None
        self._look_for_leavers()

    def _let_in(self) -> None:
        """Give those their reservation that have room, in order; the lock is held."""
        while self._waiting and (not self._reserved or self.pending + self._waiting[0][0] <= self._for_large):
            count, life, freed = self._waiting.popleft()
            if not freed.done():  # else nobody waits any more
                self._reserved += 1
                self.pending += count
                life.reserve(count)
                freed.set_result(None)


class Life:
    """One request; all of it is used from the event loop."""

    def __init__(self, lives: Lives, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin: nothing is read, and nothing is held."""
        self.sent: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        """Headers of the request by their names in small letters; of several of one name, the first."""
        self.id = id_of(self.sent, lives)
        """The caller's, if it is valid."""
        self.lives, self.status = lives, 500
        self.state: State = "reading"
        self.headers: dict[str, str] = {}
        """That its answer gets, besides those of its route."""
        self.log: dict[str, Any] = {}
        """What its line in the log says of it, besides."""
        self.bytes = 0
        """That it holds, or has reserved."""
        self._began = time.perf_counter()
        self._receive, self._send = receive, send
        declared = self.sent.get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._waits_for_us = b"expect" in self.sent  # the client sends the body only when it is read
        large = self._declared > SMALL
        self._times = 1 if is_form(self.sent) else 2  # its size, that it takes with what is parsed from it
        self._most = self._declared * self._times if large else 0  # to be reserved
        self._is_open = b"content-length" not in self.sent  # its size is known at its end
        self._is_large, self._spare = False, 0  # whether it has a reservation; of it, what is not taken
        self._until = asyncio.get_running_loop().time() + lives.limits.body_timeout_s
        self._here: Mapping[str, Any] = scope.get("state", {})  # where the server says whether all of the body is here
        self._seen, self._more = 0, True  # of the body
        self._left_s: float | None = None  # of the deadline, which begins with the work
        self._work: Work[Any] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def lead(self, app: ASGIApp, scope: Scope) -> None:
        """Let the application answer; whatever happens, all that is held is given back here, and nowhere else."""
        scope["state"]["life"] = self
        most_items.set(self.lives.limits.max_items)
        embeds_empty_texts.set(self.sent.get(EMPTY_TEXTS) == b"embed")
        try:
            await app(scope, self.receive, self.send)
        finally:
            self.state, work, self._work = "ended", self._work, None
            del scope["state"]["life"]  # else each holds the other, and Python's collector looks rarely
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None  # whose error will hold its frame, which holds this
            give = partial(self.lives.release, self.bytes, ends=self._is_large)
            if work is None:
                give()
            else:  # a thread may still work on what was sent
                work.give_up()
                work.add_done_callback(lambda _: give())

    # --- bytes

    def reserve(self, count: int) -> None:
        """Have bytes that it will take at most; they are counted already."""
        self._is_large, self._spare = True, count
        self.bytes += count

    def take(self, count: int) -> None:
        """Take more bytes.

        Raises:
            BodyRefused: 429, other requests leave too little; a single request always fits.
        """
        reserved = min(count, self._spare)
        self._spare -= reserved
        count -= reserved
        others, limit = self.lives.pending - self.bytes, self.lives.limits.max_pending_bytes
        if count and others and others + self.bytes + count > limit:
            raise self.lives.refusal(others)
        self._add(count)

    def give_back(self, count: int = 0) -> None:
        """Give back bytes that were taken, and what was reserved and not taken."""
        self._give(self._spare)
        self.bytes -= count
        self.lives.release(count)

    def _give(self, spare: int) -> None:
        """Give back of what was reserved and not taken."""
        self._spare -= spare
        self.bytes -= spare
        self.lives.release(spare)

    def _add(self, count: int) -> None:
        self.bytes += count
        self.lives.add(count)

    # --- reading

    async def read(self) -> bytearray:
        """The whole body, in one growing buffer: joining chunks would take twice the memory.

        Raises:
            BodyRefused: as :meth:`receive`.
            Refused: 499, the client left.
        """
        whole = bytearray()
        while self._more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Refused(_LEFT)
            whole += message.get("body", b"")
        return whole

    async def receive(self) -> Message:
        """The next chunk of the body.

        Raises:
            BodyRefused: 413 too large, 408 too slow, 429 too much at once.
        """
        if not self._more:
            return await self._receive()  # returns when the client leaves
        self._check_size()
        if self._is_open and self._seen > SMALL:
            self._is_open, self._most = False, self.lives.limits.max_body_bytes * self._times
        if self._most:
            most, self._most, began = self._most, 0, time.perf_counter()
            await self.lives.reserve(self, most)
            waited_s = time.perf_counter() - began
            self._until += waited_s
            self._left_s = self.lives.limits.deadline_s - waited_s
        try:
            message = await self._next(self._until)
        except TimeoutError:
            limit = f"{self.lives.limits.body_timeout_s:g} s (body_timeout_s): send less at once"
            raise BodyRefused(Failure(408, "body_timeout", f"the body did not arrive within {limit}")) from None
        self.take(len(message.get("body", b"")))
        self._check_size()
        if not message.get("more_body") and self._spare > self._seen:  # reserved for a size that was not known
            self._give(self._spare - self._seen)
        return message

    async def _next(self, until: float) -> Message:
        if self._here.get(WHOLE):
            message = await self._receive()
        else:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._more = message.get("more_body", False)
        return message

    def _check_size(self) -> None:
        if (size := max(self._declared, self._seen)) > (most := self.lives.limits.max_body_bytes):
            message = f"the body has at least {size:,} bytes, the limit is {most:,} (max_body_bytes): send less at once"
            raise BodyRefused(Failure(413, "body_too_large", message))

    def _give_up_body(self) -> None:
        """Give back all that was taken or reserved for a body that is refused, before its rest is dropped."""
        held, ends = self.bytes, self._is_large
        self.bytes, self._spare, self._is_large = 0, 0, False
        self.lives.release(held, ends=ends)

    async def _drop_rest(self) -> None:
        """Receive and drop the rest of a body: closing the connection before would lose the answer."""
        task = asyncio.current_task()
        stops = task is not None and task.cancelling()  # the server does not wait for the answer either
        while self._more and not self._waits_for_us and not stops:
            try:
                await self._next(min(self._until, asyncio.get_running_loop().time() + _LINGER_S))
            except TimeoutError:
                return

    # --- working

    async def work(self, pool: Pool, call: Callable[[], T], inputs: int = 1) -> tuple[T, float]:
        """Wait for a thread and for the call; return its result, and how many seconds it had waited.

        A call whose deadline passed or whose client left is dropped if it still waits, with all that it holds; a
        running one keeps its thread and ends with the current item, see :func:`.pool.still_wanted`.

        Args:
            pool: of the threads.
            call: what to compute.
            inputs: how many it brings along.

        Raises:
            Refused: 429, the queue is full; 504, the deadline passed; 499, the client left; 503, the pool is closed.
        """
        self.state, deadline_s = "working", self.lives.limits.deadline_s
        left_s, began = deadline_s if self._left_s is None else self._left_s, time.perf_counter()
        work = self._work = pool.submit(call, inputs)
        loop = asyncio.get_running_loop()
        over, leaving = loop.create_future(), self._watch()
        let_go = partial(_let_go, over)
        late = loop.call_later(max(0.0, left_s), let_go)
        work.add_done_callback(partial(_let_go_from_thread, loop, over))
        leaving.add_done_callback(let_go)
        try:
            await over
            if work.done():
                self._work = None  # which holds its error, which holds this frame
                if work.cancelled():
                    raise Refused(STOPPING)
                return work.result()
            self.check_there()
            message = f"no answer within {deadline_s:g} s (deadline_s): send less at once, or try again later"
            raise Refused(Failure(504, "deadline_exceeded", message))
        finally:
            self._left_s = left_s - (time.perf_counter() - began)
            work.give_up()
            late.cancel()
            leaving.remove_done_callback(let_go)
            # an error of the call holds this frame: none of these may hold the error, or what was sent stays until
            # the garbage collector looks for circles
            del call, work, leaving

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the turn to parse, see :attr:`Lives.turn`.

        Raises:
            Refused: 499, the client left; while it waits, at once.
        """
        turn = asyncio.ensure_future(self.lives.turn.acquire())
        try:
            await asyncio.wait((turn, self._watch()), return_when=asyncio.FIRST_COMPLETED)
            self.check_there()
            yield
        finally:
            if not turn.cancel():
                self.lives.turn.release()

    def has_left(self) -> bool:
        """Whether the client has closed the connection, also while nothing is read from it, if the server can tell."""
        left: Callable[[], bool] | None = self._here.get(LEFT)
        return left is not None and left()

    def check_there(self) -> None:
        """Check that the client, whose body is read, has not left.

        Raises:
            Refused: 499.
        """
        if self._watch().done():
            self._watch().result()  # raises an error of the rest of the request
            raise Refused(_LEFT)

    def _watch(self) -> asyncio.Task[None]:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        return self._leaving

    async def _leave(self) -> None:
        """Return when the client has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass  # an empty body that was not read

    # --- writing

    def answer(self, pieces: list[bytes]) -> Response:
        """The answer in JSON; while its client takes it, its bytes count as the body's do."""
        self._add(sum(map(len, pieces)))
        return _JsonAnswer(self, pieces)

    async def send(self, message: Message) -> None:
        """Send a part of the answer, as the application has it."""
        if message["type"] == "http.response.start":
            if message["status"] >= _REFUSED and self._more:
                self._give_up_body()
            await self._drop_rest()
            self.state, self.status = "writing", message["status"]
            headers = message.setdefault("headers", [])
            headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]
            headers.append((b"x-request-id", self.id.encode("ascii")))
        await self._send(message)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began


def _let_go(over: asyncio.Future[None], _: object = None) -> None:
    if not over.done():
        over.set_result(None)


def _let_go_from_thread(loop: asyncio.AbstractEventLoop, over: asyncio.Future[None], _: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_let_go, over)


class _JsonAnswer(Response):
    """An answer that is made; each piece is dropped when it is sent."""

    media_type = "application/json"

    def __init__(self, life: Life, pieces: list[bytes]) -> None:
        self._life, self._pieces = life, pieces
        self.status_code, self.background = 200, None  # without the rest of a response, which takes as long as a route
        length = str(sum(map(len, pieces))).encode("ascii")
        self.raw_headers = [(b"content-length", length), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._pieces.reverse()
        while self._pieces:
            body = self._pieces.pop()
            await send({"type": "http.response.body", "body": body, "more_body": bool(self._pieces)})
            self._life.give_back(len(body))


class Living:
    """The outermost layer: makes the life of each request, and counts and logs it when it has ended."""

    def __init__(self, app: ASGIApp, lives: Lives, ends: Ends) -> None:
        self._app, self._lives, self._ends = app, lives, ends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        life, inner = Life(self._lives, scope, receive, send), routed(scope)
        token = request_id.set(life.id)
        try:
            await life.lead(self._app, inner)
        finally:
            route = getattr(inner.get("route"), "path", "other")  # the template, so that metrics have few labels
            self._ends.note(scope, route, life.status, life.seconds, life.log)
            request_id.reset(token)


def id_of(sent: Mapping[bytes, bytes], lives: Lives) -> str:
    """The id of a request: the caller's by the headers that were sent, if it is valid, or a new one."""
    given = sent.get(b"x-request-id", b"")
    return given.decode("ascii") if _ID.fullmatch(given) else f"{lives.ids.getrandbits(128):032x}"


class Ends:
    """Counts and logs requests when they have ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests, self._seconds = metrics.requests, metrics.seconds
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}  # of each route and status

    def note(self, scope: Scope, route: str, status: int, seconds: float, said: Mapping[str, Any]) -> None:
        """Note one; its id is that of the context."""
        if (known := self._known.get((route, status))) is None:
            known = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._known[route, status] = known
        known[0].inc()
        known[1].observe(seconds)
        level = logging.DEBUG if route in PROBES else logging.INFO
        if log.isEnabledFor(level):
            line = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
            log.log(level, "request", extra={**line, **said})
