"""Connections that make progress: uvicorn waits for ever for a head, for a body, and for its answer to be taken."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .logs import LOGGER
from .settings import ServeSettings

log = logging.getLogger(LOGGER)


def bounded(settings: ServeSettings) -> type[H11Protocol]:
    """Make uvicorn's protocol class with the limits of the settings."""
    waits_s = {h11.IDLE: settings.head_timeout_s, h11.SEND_BODY: settings.body_timeout_s}  # what the client is to send

    class Connection(H11Protocol):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._waits_for: object = None
            self._late: asyncio.TimerHandle | None = None
            self._stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                log.warning("connection refused: %d are open (max_connections)", settings.max_connections)
                transport.abort()
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._waits_for = None  # the rest of a body that nobody reads has a time of its own
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(settings.body_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._stuck)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            _cancel(self._late)
            _cancel(self._stuck)

        def _watch(self) -> None:
            """Start the clock anew when the client has something else to send, and stop it when nothing."""
            if self._waits_for is (now := self.conn.their_state):
                return
            self._waits_for = now
            _cancel(self._late)
            if (limit_s := waits_s.get(now)) is not None:
                self._late = self.loop.call_later(limit_s, self._give_up)

        def _give_up(self) -> None:
            if self._waits_for is h11.IDLE or self.cycle.response_complete:
                self.transport.close()  # else the application answers 408, in the words of the dialect

    return Connection


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
