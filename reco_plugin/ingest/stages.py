"""Concurrent stages that keep their order: iterators that run ahead of their reader in a thread, or in a pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from ..errors import RecoError

T = TypeVar("T")
R = TypeVar("R")

_LOOK_S = 0.1
"""How often a thread that waits for room checks whether its reader stopped."""
_PIECES = 16
"""Tasks per list: few, since each costs some microseconds, but enough to keep all threads of a pool busy."""
_END = object()


@dataclass(frozen=True)
class _Failed:
    error: BaseException


def make_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of ``size``, the last one shorter; an error of ours is raised after the last list."""
    chunk: list[T] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except RecoError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """The same items, made ahead in a separate thread, at most ``size`` of them.

    Errors of the thread are raised here. Closing this closes ``items``, in their thread, and waits for it.
    """
    waiting: Queue[Any] = Queue(size)
    stop = Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not put(item):
                        return
        except BaseException as error:
            put(_Failed(error))
        else:
            put(_END)

    thread = Thread(target=work, name="reco-ingest", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join()


def in_order(
    pool: Executor, work: Callable[[T], R], chunks: Iterable[list[T]], *, window: int
) -> Generator[list[R], None, None]:
    """Do work on each item in a pool; returns whole lists in order, with ``window`` of them in progress."""
    begun: deque[list[Future[list[R]]]] = deque()

    def do(piece: list[T]) -> list[R]:
        return [work(item) for item in piece]

    def done() -> list[R]:
        return [result for piece in begun.popleft() for result in piece.result()]

    try:
        for chunk in chunks:
            begun.append([pool.submit(do, piece) for piece in make_chunks(chunk, -(-len(chunk) // _PIECES))])
            if len(begun) >= window:
                yield done()
        while begun:
            yield done()
    finally:
        for piece in (piece for pieces in begun for piece in pieces):
            piece.cancel()
