"""What each service is asked, as bytes of HTTP, and the vectors in what it answers."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import orjson

from reco_plugin.types import Modality, Vectors

from ..callers import post

Dialect: TypeAlias = Literal["ours", "infinity", "plain", "kserve"]
"""``plain`` is OpenAI's body with texts or data URIs, ``kserve`` Triton's own with its binary extension."""
PATHS: dict[Dialect, str] = {
    "ours": "/v1/embeddings",
    "infinity": "/embeddings",
    "plain": "/embeddings",
    "kserve": "/v2/models/reco/infer",
}


def request(dialect: Dialect, items: Sequence[Any], modality: Modality) -> bytes:
    """One request for B texts, or B JPEG files."""
    if dialect == "kserve":
        return _kserve([one.encode() if isinstance(one, str) else one for one in items], modality)
    uris = modality == "image"
    given = ["data:image/jpeg;base64," + base64.b64encode(one).decode() for one in items] if uris else list(items)
    body: dict[str, Any] = {"model": "clip", "input": given}
    if dialect == "infinity":
        body["modality"] = modality
    return post(PATHS[dialect], json.dumps(body).encode())


def _kserve(items: Sequence[bytes], modality: Modality) -> bytes:
    data = b"".join(struct.pack("<I", len(one)) + one for one in items)
    given = {"name": modality, "shape": [len(items), 1], "datatype": "BYTES"}
    head: dict[str, Any] = {
        "parameters": {"refine": False},
        "inputs": [given | {"parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}],
    }
    packed = json.dumps(head).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(packed))}
    return post(PATHS["kserve"], packed + data, headers)


def vectors(dialect: Dialect, headers: bytes, body: bytes) -> Vectors:
    """(B, D) of an answer."""
    if dialect != "kserve":
        rows = sorted(orjson.loads(body)["data"], key=lambda row: row["index"])
        return np.array([row["embedding"] for row in rows], np.float32)
    (length,) = [
        int(line.partition(b":")[2])
        for line in headers.lower().split(b"\r\n")
        if line.startswith(b"inference-header-content-length:")
    ]
    (told,) = [one for one in orjson.loads(body[:length])["outputs"] if one["name"] == "embedding"]
    return np.frombuffer(body[length:], "<f4").reshape(told["shape"]).astype(np.float32)
