"""A memory that cannot be reached yet: it is opened by whoever first needs it and finds it there."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import FingerprintMismatch, MemoryStoreError
from ..types import Fingerprint
from .base import Memory
from .header import Header


class LazyMemory:
    """Opens the memory when it is first asked for and can be reached.

    Several calls at once make one attempt between them. A memory that turns out to be of another encoder is refused
    from then on, also by :attr:`header`, and is not asked again.
    """

    def __init__(self, connect: Callable[[], Memory], *, kind: str, location: str, fingerprint: Fingerprint) -> None:
        """Promise a memory.

        Args:
            connect: opens it, and refuses one of another encoder.
            kind: of the memory.
            location: of the memory, for messages.
            fingerprint: the encoder that it must be of.
        """
        self.kind, self.location = kind, location
        self._connect, self._expected = connect, Header(fingerprint)
        self._opening, self._attempts = threading.Lock(), 0
        self._store: Memory | None = None
        self._error: MemoryStoreError | None = None
        self._closed = threading.Event()

    @property
    def header(self) -> Header:
        """Fingerprint and calibration; until the memory was reached, the expected fingerprint alone. Asks nobody.

        Raises:
            FingerprintMismatch: the memory was reached, and is of another encoder.
        """
        self._refuse_other()
        return self._expected if self._store is None else self._store.header

    def opened(self) -> Memory:
        """The memory, opened now where it was not yet.

        Raises:
            FingerprintMismatch: it is of another encoder.
            MemoryStoreError: it cannot be reached yet, or was closed before it could.
        """
        before, store = self._attempts, self._store
        if store is not None:
            return store
        with self._opening:
            store = self._store
            if store is not None:
                return store
            self._refuse_other()
            if self._attempts != before and self._error is not None:  # another call tried while this one waited
                raise type(self._error)(str(self._error))
            if self._closed.is_set():
                raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")
            try:
                self._store = store = self._connect()
            except MemoryStoreError as error:
                self._error = error
                raise
            finally:
                self._attempts += 1
            if self._closed.is_set():
                store.close()
            return store

    def close(self) -> None:
        """Let go of the store; one that is being opened is closed as soon as it is open."""
        self._closed.set()
        if self._store is not None:
            self._store.close()

    def _refuse_other(self) -> None:
        if isinstance(self._error, FingerprintMismatch):
            raise FingerprintMismatch(str(self._error))
