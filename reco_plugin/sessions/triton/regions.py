"""Large inputs in system shared memory, for a server on the same host: it maps them instead of receiving them.

A region's file is unlinked once both sides have mapped it, so that nothing is left behind however a process ends. Linux
only, as the server is.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...config import SharedMemoryMode
from ...errors import SessionError, SessionTimeout, SessionUnavailable
from .wire import Placement, Wire

WORTH_IT = 1 << 17
"""Bytes of a request above which shared memory is faster than sending, see docs/triton.md."""
_FILES = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives; names are random, files private
_ALIGN = 64
_GOODBYE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """Memory that both sides have mapped."""

    name: str
    memory: mmap.mmap
    size: int
    generation: int
    """Of the server: after a restart, older regions are unknown to it."""


class Regions:
    """A pool; each region serves one request at a time.

    In mode auto, inputs are sent if the server cannot see our memory; on raises.
    """

    def __init__(self, wire: Wire, mode: SharedMemoryMode) -> None:
        self._wire, self._mode = wire, mode
        self._free: list[Region] = []
        self._lock = threading.Lock()
        self._generation = 0

    @contextmanager
    def placed(self, inputs: Mapping[str, npt.NDArray[Any]], timeout: float) -> Iterator[dict[str, Placement]]:
        """Put inputs (B, ...) into a region for one request; an empty result means: send them.

        Raises:
            SessionError: the mode is on and the server cannot map the memory of this host.
        """
        size = sum(map(_pad_size, inputs.values()))
        region = self._take(size, timeout) if self._mode != "off" and size >= WORTH_IT else None
        if region is None:
            yield {}
            return
        try:
            yield _write(region, inputs)
        finally:
            self._give(region)

    def forget(self) -> None:
        """Drop all regions, since a restarted server has none of them."""
        with self._lock:
            self._generation += 1
            lost, self._free = self._free, []
        for region in lost:
            region.memory.close()

    def give_up(self, reason: Exception) -> None:
        """Send inputs from now on, since they cannot be shared.

        Raises:
            SessionError: the mode is on.
        """
        if self._mode == "on":
            raise SessionError(
                f"triton_shared_memory is on, but it cannot be used: {reason}. The server must run on this host, as "
                "the same user, and see its /dev/shm (docker: --ipc=host); or set auto or off."
            ) from reason
        _log.info("inputs are sent to Triton, not shared: %s", reason)
        self.close()

    def close(self) -> None:
        """Unmap everything, here and on the server if it answers."""
        with self._lock:
            self._mode = "off"
            regions, self._free = self._free, []
        for region in regions:
            self._retire(region)

    def _take(self, size: int, timeout: float) -> Region | None:
        with self._lock:
            region = self._free.pop() if self._free else None
        if region is not None and region.size >= size:
            return region
        if region is not None:
            self._retire(region)  # replaced by a larger one: no more regions than concurrent requests
        try:
            return self._make(1 << (size - 1).bit_length(), timeout)
        except (SessionUnavailable, SessionTimeout):
            raise
        except (SessionError, OSError) as error:
            self.give_up(error)
            return None

    def _give(self, region: Region) -> None:
        with self._lock:
            keep = self._mode != "off" and region.generation == self._generation
            if keep:
                self._free.append(region)
        if not keep:
            self._retire(region)

    def _make(self, size: int, timeout: float) -> Region:
        name, generation = f"reco-{uuid.uuid4().hex}", self._generation
        path = _FILES / name
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # a full /dev/shm is an error here, not a crash at the first write
            memory = mmap.mmap(file, size)
            self._wire.register(name, f"/{name}", size, timeout)
        finally:
            os.close(file)
            path.unlink()
        return Region(name, memory, size, generation)

    def _retire(self, region: Region) -> None:
        region.memory.close()
        if region.generation == self._generation:
            with suppress(SessionError):
                self._wire.unregister(region.name, _GOODBYE_S)


def _write(region: Region, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, Placement]:
    places, offset = {}, 0
    for name, array in inputs.items():
        if not array.size:
            continue  # Triton refuses empty regions
        target = np.frombuffer(region.memory, array.dtype, array.size, offset)
        target.reshape(array.shape)[...] = array
        places[name] = Placement(region.name, offset, array.nbytes)
        offset += _pad_size(array)
    return places


def _pad_size(array: npt.NDArray[Any]) -> int:
    return -(-array.nbytes // _ALIGN) * _ALIGN
