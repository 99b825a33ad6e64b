"""Weaviate's CLIP container: what its own smoke test asks for, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Reco

LONG = "a red circle " * 50


class TestClipContainer:
    """What Weaviate's own smoke test of the container asks for, over a socket."""

    @pytest.fixture
    def open_url(self, filled: Reco, live: Any) -> Iterator[str]:
        """Without a key, since Weaviate sends the container none."""
        with live(filled) as (base, _):
            yield base

    def test_smoke(self, open_url: str, red_square: str, filled: Reco, picture: Image.Image) -> None:
        assert httpx.get(f"{open_url}/.well-known/ready").status_code == 204
        live = httpx.get(f"{open_url}/.well-known/live")
        assert (live.status_code, live.content) == (204, b"")
        assert isinstance(httpx.get(f"{open_url}/meta").json(), dict)
        body = {"texts": ["This is plane", "Boeing 737", "Blue plane"], "images": [red_square, red_square]}
        answer = httpx.post(f"{open_url}/vectorize", json=body).json()
        assert np.allclose(answer["textVectors"], filled.embed_texts(body["texts"], refine=False), atol=1e-5)
        assert np.allclose(answer["imageVectors"], filled.embed_images([picture] * 2, refine=False), atol=1e-5)
        assert all(len(vector) > 100 for vector in answer["textVectors"] + answer["imageVectors"])

    def test_texts_alone_images_alone_empty_and_long_texts(self, client: TestClient, red_square: str) -> None:
        texts = client.post("/vectorize", json={"texts": ["", LONG, "🦊", "x" * 60_000]}).json()
        assert [len(texts["textVectors"]), texts["imageVectors"]] == [4, []]
        assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in texts["textVectors"])
        images = client.post("/vectorize", json={"images": [red_square]}).json()
        assert [images["textVectors"], len(images["imageVectors"])] == [[], 1]

    def test_an_empty_title_leaves_the_mean_to_the_image(self, client: TestClient, red_square: str) -> None:
        """Weaviate adds both, and compares directions."""
        alone = client.post("/vectorize", json={"images": [red_square]}).json()["imageVectors"][0]
        for title in ("", " "):
            both = client.post("/vectorize", json={"texts": [title], "images": [red_square]}).json()
            assert np.add(both["textVectors"][0], both["imageVectors"][0]).tolist() == alone

    @pytest.mark.parametrize(
        ("body", "status", "named"),
        [
            ({}, 400, "texts or images"),
            ({"texts": [], "images": []}, 400, "texts or images"),
            ({"texts": "a"}, 400, "texts"),
            ({"texts": ["a", "b"], "images": ["AAAA"]}, 415, "images[0]"),
        ],
    )
    def test_errors_are_one_string_and_name_the_item(
        self, client: TestClient, body: Any, status: int, named: str
    ) -> None:
        response = client.post("/vectorize", json=body)
        assert response.status_code == status and [*response.json()] == ["error"]
        assert named in response.json()["error"]

    def test_not_ready_while_it_stops(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client.app.state.shared, "is_stopping", True)
        response = client.get("/.well-known/ready")
        assert response.status_code == 503 and "stopping" in response.json()["error"]
        assert client.get("/.well-known/live").status_code == 204
