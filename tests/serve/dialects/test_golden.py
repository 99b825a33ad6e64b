"""One request and its answer per dialect, word for word; what stands in <> is a vector that is computed here."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Reco

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def compare(found: Any, expected: Any, vectors: Any, path: str = "$") -> None:
    """Walk through both; every key is the same, every <name> is what it stands for."""
    if isinstance(expected, str) and (name := re.fullmatch("<(.*)>", expected)):
        vectors.check(name[1], found)
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and [*found] == [*expected], path
        for key, value in expected.items():
            compare(found[key], value, vectors, f"{path}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), path
        for index, value in enumerate(expected):
            compare(found[index], value, vectors, f"{path}[{index}]")
    else:
        assert found == expected and type(found) is type(expected), path


class Vectors:
    """What the names in the files stand for."""

    def __init__(self, reco: Reco, image: Image.Image) -> None:
        self._reco, self._image = reco, image

    def check(self, name: str, found: Any) -> None:
        if name in ("tokens", "id"):
            assert isinstance(found, int) and found >= 3 if name == "tokens" else len(found) > 8
            return
        if name.startswith("base64 of "):
            found = np.frombuffer(base64.b64decode(found), "<f4")
        else:
            assert all(type(value) is float for value in found)
        assert np.allclose(found, self._vector(name.removeprefix("base64 of ")), atol=1e-5), name

    def _vector(self, name: str) -> np.ndarray:
        if name.startswith("mean of "):
            first, second = map(self._vector, name.removeprefix("mean of ").split(", and "))
            return (first + second) / np.linalg.norm(first + second)
        refine, name = name.startswith("refined "), name.removeprefix("refined ")
        if name == "image":
            return self._reco.embed_images([self._image], refine=refine)[0]
        return self._reco.embed_texts([name.removeprefix("text: ")], refine=refine)[0]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden(file: Path, client: TestClient, filled: Reco, red_square: str, picture: Image.Image) -> None:
    text = file.read_text("utf-8").replace("<base64 of the red square>", red_square)
    case = json.loads(text)
    response = client.post(case["path"], json=case["request"])
    assert response.status_code == case["status"], response.text
    assert response.headers["content-type"] == "application/json"
    compare(response.json(), case["response"], Vectors(filled, picture))
