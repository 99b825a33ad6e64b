"""open_clip in eager torch behind FastAPI, as users write it: the baseline of :mod:`.peers`.

``uvicorn benchmarks.speed.open_clip_service:app``. FastAPI's threads run the requests.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel

from .inputs import VIT

torch.manual_seed(0)  # the weights of `load_frozen`
clip, _, transform = open_clip.create_model_and_transforms(VIT)
clip.eval()
tokenizer = open_clip.get_tokenizer(VIT)
app = FastAPI()


class Request(BaseModel):
    """Texts, or images as data URIs."""

    input: list[str]
    model: str


@app.get("/readyz")
def ready() -> dict[str, str]:
    """Answer after the model is loaded."""
    return {"status": "ready"}


@app.post("/v1/embeddings")
def embeddings(request: Request) -> dict[str, Any]:
    """Unit vectors in OpenAI's form."""
    with torch.inference_mode():
        if request.input[0].startswith("data:image/"):
            found = clip.encode_image(torch.stack([transform(_image(one)) for one in request.input]))
        else:
            found = clip.encode_text(tokenizer(request.input))
    rows = F.normalize(found, dim=-1).tolist()
    return {"data": [{"index": place, "embedding": row} for place, row in enumerate(rows)]}


def _image(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
