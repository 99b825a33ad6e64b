"""API dialects: each translates its JSON to the internal request model, and answers and failures back.

A dialect is a module with ``router(edge) -> APIRouter``. They share :mod:`.shared`: inputs of several parts, one row
each; query or document, formats, dimensions, statuses for the OpenAPI document.
"""

from __future__ import annotations

from fastapi import APIRouter

from ..app_state import Edge
from . import clip, cohere, immich, openai, tei, titan, voyage


def routers(edge: Edge) -> list[APIRouter]:
    """The routes of all dialects."""
    return [dialect.router(edge) for dialect in (openai, voyage, cohere, clip, titan, tei, immich)]
