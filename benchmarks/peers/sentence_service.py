"""sentence-transformers behind FastAPI, as its users write it: run by the environment of the others, not imported here.

``uvicorn sentence_service:app``, with the checkpoint in ``CHECKPOINT``. Requests are answered by FastAPI's threads.
"""

import base64
import io
import os

import torch
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import CLIPModel  # type: ignore[import-not-found]  # of the older version there

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
model = SentenceTransformer(modules=[CLIPModel(os.environ["CHECKPOINT"])], device="cpu")
app = FastAPI()


class Asked(BaseModel):
    """Texts, or images as data URIs."""

    input: list[str]


@app.get("/health")
def health() -> dict[str, str]:
    """Ready once the model is loaded."""
    return {"status": "ok"}


@app.post("/embeddings")
def embeddings(asked: Asked) -> dict[str, object]:
    """Vectors of unit norm, as OpenAI's API writes them."""
    items = [_image(one) if one.startswith("data:image/") else one for one in asked.input]
    vectors = model.encode(items, normalize_embeddings=True, show_progress_bar=False)
    return {"data": [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]}


def _image(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
