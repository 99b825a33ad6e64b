"""immich's smart search: its own client's requests, answered with queries refined and documents as they are."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco

NAME = "reco-quickstart-mini-clip"
TEXT = "a small red circle"
# getFormData and predict of immich's server/src/repositories/machine-learning.repository.ts, in plain JavaScript
CLIENT = """
const {readFile} = require('node:fs/promises');
const [url, modelName, imagePath, text] = process.argv.slice(1);
async function ask(payload, config) {
  const formData = new FormData();
  formData.append('entries', JSON.stringify(config));
  if (payload.imagePath) {
    formData.append('image', new Blob([new Uint8Array(await readFile(payload.imagePath))]));
  } else {
    formData.append('text', payload.text);
  }
  const response = await fetch(new URL('/predict', url), {method: 'POST', body: formData});
  if (!response.ok) throw new Error(response.status + await response.text());
  return response.json();
}
(async () => {
  const ping = await fetch(new URL('/ping', url));
  const image = await ask({imagePath}, {clip: {visual: {modelName}}});
  const words = await ask({text}, {clip: {textual: {modelName, options: {language: 'en'}}}});
  console.log(JSON.stringify({ping: ping.ok, image, words}));
})();
"""


def entries(task: str, name: str = NAME) -> dict[str, str]:
    return {"entries": json.dumps({"clip": {task: {"modelName": name}}})}


def vector(answer: dict[str, Any]) -> np.ndarray:
    """immich stores the text of the vector as it is."""
    assert isinstance(answer["clip"], str)
    return np.array(json.loads(answer["clip"]))


def test_texts_are_refined_and_images_are_not(client: TestClient, filled: Reco, red_square: str) -> None:
    image = base64.b64decode(red_square)
    found = client.post("/predict", data=entries("textual"), files={"text": (None, TEXT)})
    assert found.status_code == 200, found.text
    assert found.headers["x-reco-refined"] == "true"
    assert np.allclose(vector(found.json()), filled.embed_texts([TEXT])[0], atol=1e-5)
    sent = found.request.headers["content-type"].replace("multipart/form-data", "Multipart/Form-Data")
    again = client.post("/predict", content=found.request.read(), headers={"content-type": sent})
    assert again.json() == found.json()
    found = client.post("/predict", data=entries("visual"), files={"image": ("blob", image)})
    assert found.headers["x-reco-refined"] == "false"
    assert np.allclose(vector(found.json()), filled.embed_images([image], refine=False)[0], atol=1e-5)
    assert {name: found.json()[name] for name in ("imageWidth", "imageHeight")} == {"imageWidth": 40, "imageHeight": 30}


def test_immichs_own_client(filled: Reco, live: Any, red_square: str, tmp_path: Path) -> None:
    if not (node := shutil.which("node")):
        pytest.skip("immich's client needs node")
    image = tmp_path / "square.png"
    image.write_bytes(base64.b64decode(red_square))
    with live(filled) as (url, _):
        done = subprocess.run([node, "-e", CLIENT, url, NAME, image, TEXT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ping"] is True
    assert np.allclose(vector(found["words"]), filled.embed_texts([TEXT])[0], atol=1e-5)
    assert np.allclose(vector(found["image"]), filled.embed_images([image], refine=False)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("form", "status", "word"),
    [
        ({}, 400, "entries"),
        ({"entries": "{"}, 400, "entries"),
        ({"entries": "[" * 100_000}, 400, "entries"),
        ({"entries": '{"clip": {"oral": {"modelName": "x"}}}', "text": TEXT}, 400, "textual"),
        (entries("textual", "ViT-B-32__openai") | {"text": TEXT}, 404, f"the model here is {NAME}"),
        (entries("textual"), 400, "needs the field text"),
        (entries("visual") | {"image": "no file"}, 400, "needs the field image"),
        ({"entries": '{"facial-recognition": {}}'}, 400, "facial-recognition is not supported here"),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, form: dict[str, str], status: int, word: str) -> None:
    found = client.post("/predict", data=form, files={"none": ("", b"")})
    assert (found.status_code, word in found.json()["detail"]) == (status, True), found.text


def test_a_body_that_is_no_form_is_refused(client: TestClient) -> None:
    form = "multipart/form-data"
    for body, kind in [(b"{}", "application/json"), (b"--x\r\n", f"{form}; boundary=x"), (b"x", form)]:
        found = client.post("/predict", content=body, headers={"content-type": kind})
        assert 400 <= found.status_code < 500 and "detail" in found.json(), found.text


def test_a_form_that_is_too_large_is_413(filled: Reco, served: Any) -> None:
    with served(filled, max_body_bytes=1000) as small:
        found = small.post("/predict", data=entries("visual"), files={"image": ("blob", b" " * 1000)})
    assert (found.status_code, "max_body_bytes" in found.json()["detail"]) == (413, True)


def test_a_picture_that_is_none_is_refused(client: TestClient) -> None:
    found = client.post("/predict", data=entries("visual"), files={"image": ("blob", b"no picture")})
    assert found.status_code == 415 and "image" in found.json()["detail"], found.text
