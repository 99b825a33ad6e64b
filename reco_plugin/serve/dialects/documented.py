"""Statuses of a dialect's routes for the OpenAPI document, each with the dialect's own shape."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..schemas import ERRORS


def errors_as(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """All failures that a dialect can answer, in its shape."""
    texts = {status: answer["description"] for status, answer in ERRORS.items()}
    texts |= {424: "the URL of an image could not be fetched"}
    return {status: {"model": model, "description": text} for status, text in texts.items()}
