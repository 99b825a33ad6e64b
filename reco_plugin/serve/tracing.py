"""Spans of a request's steps, where OpenTelemetry is installed and set up; otherwise nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def _installed() -> bool:
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


def span(name: str) -> AbstractContextManager[Any]:
    """A span below the current one; the request's own comes from OpenTelemetry's instrumentation of FastAPI."""
    if not _installed():
        return nullcontext()
    from opentelemetry import trace

    return trace.get_tracer("reco_plugin").start_as_current_span(name)
