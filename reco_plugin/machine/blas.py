"""How many threads products take: one for small batches, and one each for many parts of large work, side by side.

A BLAS that has used several threads lets them wait actively for some 30 ms, on the cores of the next encoding.
A benchmark showed it in which a plain call follows a refinement, and the encoding of a refined one does not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Part = TypeVar("Part")
Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]
_ALONE = 4 * 65_536
"""Multiplications up to which OpenBLAS, which numpy's wheels bring, takes one thread for a product of two matrices."""
_SMALL = 256
"""Rows of a batch above which more threads pay."""


def multiply(x: Floats, matrix: Floats) -> Floats:
    """The product (B, M) of (B, D) and (D, M), by rows of which no block is worth a second thread.

    >>> multiply(np.ones((3, 2), np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    rows = max(2, _ALONE // max(matrix.size, 1))
    if len(x) > _SMALL:
        return np.asarray(x @ matrix, np.float32)
    out = np.empty((len(x), matrix.shape[1]), np.float32)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        if len(x[block]) == 1:  # a vector by a matrix takes more threads far earlier; einsum asks no BLAS
            np.einsum("d,dm->m", x[start], matrix, out=out[start])
        else:
            np.matmul(x[block], matrix, out=out[block])
    return out


MOST = 8
"""Parts of large work side by side, at most: each holds its own products."""
_TURN_S = 0.0002  # Python's own is 0.005
_WORKING = threading.Lock()
_HERE = threading.local()  # in a thread that works on a part, what it divides is worked on there


def _blas() -> Any:
    from threadpoolctl import ThreadpoolController  # 5 ms, and few processes learn

    return ThreadpoolController().select(user_api="blas")


def _threads(blas: Any) -> int:
    return max((int(one["num_threads"]) for one in blas.info()), default=1)


def threads_at_most() -> int:
    """Parts that :func:`side_by_side` works on at a time, at most."""
    return min(_threads(_blas()), MOST)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Let each product take one thread, in the whole process; gives how many it took before.

    1 where that cannot be: another thread works side by side, or holds BLAS to a number of its own.
    """
    if not _WORKING.acquire(blocking=False):
        yield 1
        return
    try:
        blas = _blas()
        before = _threads(blas)
        with blas.limit(limits=1), _short_turns():
            yield before if _threads(blas) == 1 else 1
    finally:
        _WORKING.release()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let each product of the block take one thread, in the whole process; :func:`side_by_side` takes all, as before.

    So what comes out does not depend on how many threads there are, also of products that are no part of others.
    """
    if hasattr(_HERE, "limits") or hasattr(_HERE, "threads"):
        yield
        return
    with _one_thread_each() as _HERE.threads:
        try:
            yield
        finally:
            del _HERE.threads


@contextmanager
def _taken() -> Iterator[int]:
    """How many parts are worked on at a time; see :func:`_one_thread_each`."""
    if hasattr(_HERE, "threads"):  # the block around this one holds them
        yield _HERE.threads
    else:
        with _one_thread_each() as threads:
            yield threads


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let no thread of Python wait longer than :data:`_TURN_S` for its turn, in the whole process.

    Between two products of a fraction of a millisecond, each part would wait 5 ms while another thread reads pairs.
    What another thread sets meanwhile, as a service that starts, stays.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_S))
    ours = sys.getswitchinterval()
    try:
        yield
    finally:
        if sys.getswitchinterval() == ours:
            sys.setswitchinterval(before)


def _begin() -> None:
    """Begin a thread for parts. A BLAS of OpenMP has a number for each thread."""
    _HERE.limits = _blas().limit(limits=1)


def side_by_side(
    work: Callable[[Part], Result], parts: Sequence[Part], told: Callable[[Result], object] | None = None
) -> list[Result]:
    """What the work returns of each part, in their order; as many at a time as BLAS takes threads.

    So selecting and sorting between products take all cores, too. Each product takes one thread meanwhile, in the whole
    process: what comes out does not depend on how many there are. A single part is worked on as if this were not here:
    around it, see :func:`one_thread_each`.

    Args:
        work: called in several threads at a time.
        parts: what it is called with.
        told: gets each result, in order, in the thread of the caller; what it raises ends this.

    >>> side_by_side(len, ["a", "bcd"])
    [1, 3]
    """
    results = list[Result]()

    def keep(found: Iterable[Result]) -> list[Result]:
        for result in found:
            results.append(result)
            if told is not None:
                told(result)
        return results

    if len(parts) < 2 or hasattr(_HERE, "limits"):
        return keep(map(work, parts))
    with _taken() as threads:
        if threads < 2:
            return keep(map(work, parts))
        pool = ThreadPoolExecutor(min(threads, MOST, len(parts)), "reco-part", _begin)
        try:
            return keep(_in_threads(pool, work, parts))
        finally:
            pool.shutdown(cancel_futures=True)


def _in_threads(pool: ThreadPoolExecutor, work: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """What the work returns of each part; in this thread where the system refuses others, by a limit of a container."""
    try:
        return pool.map(work, parts)  # which starts all
    except RuntimeError:
        pool.shutdown(cancel_futures=True)
        return map(work, parts)
