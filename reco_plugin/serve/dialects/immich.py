"""``POST /predict``, which an immich server sends to its machine-learning service (immich_ml/main.py).

The body is a form with ``entries`` (the task and the model) and ``text`` or ``image``. Texts are queries and images are
documents, so immich's index is the same as with its own service. Other tasks (faces, text in images) are refused.
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
from ..app_state import AppState
from ..embedder import Embedded, EmbedRequest
from ..failures import Failure, Refused
from ..routing import BodyRefused, context_of
from ..schemas import Strict
from ..wire import Item
from .fields import dialect_router

_TASKS: dict[str, tuple[InputType, str]] = {"textual": ("query", "text"), "visual": ("document", "image")}
"""The role of each task, and the field of the form that holds its input."""


class ImmichModel(BaseModel):
    """A model. Options, such as the language of a text, are ignored."""

    modelName: str  # noqa: N815 - immich's spelling


class ImmichEntries(Strict):
    """The one task that is supported."""

    clip: dict[str, ImmichModel]


def is_same_model(one: str, other: str) -> bool:
    """Return whether a name of immich and one of open_clip mean the same model, with or without QuickGELU.

    >>> is_same_model("ViT-B-32__laion2b-s34b-b79k", "ViT-B-32/laion2b_s34b_b79k")
    True
    >>> is_same_model("ViT-B-32__openai", "ViT-B-32-quickgelu/openai")
    True
    """
    short = [re.sub(r"[^a-z0-9]+", "-", name.lower()).replace("-quickgelu", "") for name in (one, other)]
    return short[0] == short[1]


def router(state: AppState) -> APIRouter:
    """Make the route."""
    routes = dialect_router(lambda failure: {"detail": failure.message})
    fields = {name: {"type": "string"} for name in ("text", "entries", "image")}
    form_schema = {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}}

    @routes.post("/predict", openapi_extra={"requestBody": form_schema})
    async def immich_predict(request: Request) -> Response:
        """Embed a text or an image for immich's smart search."""
        try:
            form = await request.form(max_files=1, max_fields=8, max_part_size=state.settings.max_body_bytes)
        except BodyRefused:
            raise
        except HTTPException as error:
            raise Refused(Failure(400, "invalid_form", f"the body is no multipart form: {error.detail}")) from None
        try:
            task = _task(_entries(form), state)
            item = _item(form, task)
        finally:
            await form.close()
        role, field = _TASKS[task]

        def to_answer(answer: Embedded) -> dict[str, Any]:
            vector = json.dumps(answer.rows[0].embedding.tolist())  # JSON inside JSON, as immich expects
            if not isinstance(item.content, bytes):
                return {"clip": vector}
            with Image.open(io.BytesIO(item.content)) as image:
                return {"clip": vector, "imageWidth": image.width, "imageHeight": image.height}

        return await context_of(request).embed(EmbedRequest({field: [item]}, input_type=role), to_answer)

    return routes


def _entries(form: FormData) -> dict[str, Any]:
    try:
        entries = json.loads(str(form["entries"]))
    except (KeyError, ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict) or not entries:
        message = "the field entries must say which task of which model"
        raise Refused(Failure(400, "invalid_request", message, "entries"))
    return entries


def _task(entries: dict[str, Any], state: AppState) -> str:
    """Return ``textual`` or ``visual``, if the model is the one of this service."""
    if "clip" not in entries:
        message = f"{', '.join(entries):.80} is not supported here: turn it off in immich's settings"
        raise Refused(Failure(400, "unsupported_task", message, "entries"))
    try:
        [(task, model)] = ImmichEntries.model_validate(entries).clip.items()
    except ValueError:  # pydantic's, too
        task = ""
    if task not in _TASKS:
        message = 'entries must be {"clip": {"textual" or "visual": {"modelName": ...}}}'
        raise Refused(Failure(400, "invalid_request", message, "entries"))
    served = state.embedder.reco.manifest.name
    if model.modelName not in state.embedder.aliases and not is_same_model(model.modelName, served):
        message = f"the model here is {served}, immich requests {model.modelName!r:.80}: choose it in immich's settings"
        raise Refused(Failure(404, "model_not_found", message, "entries"))
    return task


def _item(form: FormData, task: str) -> Item:
    _, field = _TASKS[task]
    value = form.get(field)
    if task == "textual" and isinstance(value, str):
        return Item(value, "text")
    if task == "visual" and isinstance(value, UploadFile):
        return Item(value.file.read(), "image")
    raise Refused(Failure(400, "empty_input", f"{task} needs the field {field}", field))
