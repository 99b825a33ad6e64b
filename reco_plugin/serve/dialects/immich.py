"""``POST /predict``: what an immich server requests from its machine-learning service (immich_ml/main.py).

A form with ``entries`` (the task and model) and ``text`` or ``image``. Texts are queries, images documents, so immich's
index stays as its own service would build it. Other tasks (faces, text in pictures) are refused.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from ...types import InputType
from ..app_state import Edge
from ..embedder import Embedded, EmbedRequest
from ..failures import Failure, Refused
from ..items import Item
from ..routing import BodyRefused, life_of
from ..schemas import Strict
from .shared import dialect_router

_TASKS: dict[str, tuple[InputType, str]] = {"textual": ("query", "text"), "visual": ("document", "image")}
"""Task -> side of its item, and the field of the form that holds it."""


class ImmichModel(BaseModel):
    """Which model; options (a text's language) are ignored."""

    modelName: str  # noqa: N815 - immich's spelling


class ImmichEntries(Strict):
    """The one task that is supported here."""

    clip: dict[str, ImmichModel]


def is_same_model(one: str, other: str) -> bool:
    """Whether immich's and open_clip's name mean one model, apart from QuickGELU in either of them.

    >>> is_same_model("ViT-B-32__laion2b-s34b-b79k", "ViT-B-32/laion2b_s34b_b79k")
    True
    >>> is_same_model("ViT-B-32__openai", "ViT-B-32-quickgelu/openai")
    True
    """
    short = [re.sub(r"[^a-z0-9]+", "-", name.lower()).replace("-quickgelu", "") for name in (one, other)]
    return short[0] == short[1]


def router(edge: Edge) -> APIRouter:
    """The route."""
    routes = dialect_router(lambda failure: {"detail": failure.message})
    fields = {name: {"type": "string"} for name in ("text", "entries", "image")}
    form_of = {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}}

    @routes.post("/predict", openapi_extra={"requestBody": form_of})
    async def immich_predict(request: Request) -> Response:
        """Embed a text or an image for immich's smart search."""
        try:
            form = await request.form(max_files=1, max_fields=8, max_part_size=edge.settings.max_body_bytes)
        except BodyRefused:
            raise
        except HTTPException as error:
            raise Refused(Failure(400, "invalid_form", f"the body is no multipart form: {error.detail}")) from None
        try:
            task = _task(_entries(form), edge)
            item = _item(form, task)
        finally:
            await form.close()
        side, field = _TASKS[task]

        def write(found: Embedded) -> dict[str, Any]:
            vector = json.dumps(found.rows[0].vector.tolist())  # JSON inside JSON, as immich's
            if not isinstance(item.content, bytes):
                return {"clip": vector}
            width, height = _size(item.content)
            return {"clip": vector, "imageWidth": width, "imageHeight": height}

        return await life_of(request).answer(EmbedRequest([item], [field], side=side), write)

    return routes


def _entries(form: FormData) -> dict[str, Any]:
    try:
        entries = json.loads(str(form["entries"]))
    except (KeyError, ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict) or not entries:
        raise Refused(
            Failure(400, "invalid_request", "the field entries must say which task of which model", "entries")
        )
    return entries


def _task(entries: dict[str, Any], edge: Edge) -> str:
    """``textual`` or ``visual``, of a model that is ours."""
    if "clip" not in entries:
        message = f"{', '.join(entries):.80} is not done here: turn it off in immich's settings"
        raise Refused(Failure(400, "unsupported_task", message, "entries"))
    try:
        [(task, model)] = ImmichEntries.model_validate(entries).clip.items()
    except ValueError:  # pydantic's, too
        task = ""
    if task not in _TASKS:
        message = 'entries must be {"clip": {"textual" or "visual": {"modelName": ...}}}'
        raise Refused(Failure(400, "invalid_request", message, "entries"))
    ours = edge.embedder.reco.manifest.name
    if model.modelName not in edge.embedder.aliases and not is_same_model(model.modelName, ours):
        message = f"the model here is {ours}, immich asks for {model.modelName!r:.80}: choose it in immich's settings"
        raise Refused(Failure(404, "model_not_found", message, "entries"))
    return task


def _item(form: FormData, task: str) -> Item:
    _, field = _TASKS[task]
    given = form.get(field)
    if task == "textual" and isinstance(given, str):
        return Item(given, "text")
    if task == "visual" and isinstance(given, UploadFile):
        return Item(given.file.read(), "image")
    raise Refused(Failure(400, "empty_input", f"{task} needs the field {field}", field))


def _size(image: bytes) -> tuple[int, int]:
    """(width, height) of an image that Pillow has decoded before."""
    with Image.open(io.BytesIO(image)) as opened:
        return opened.size
