"""Images inside JSON: every kind of file has a defined answer."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from image_files import halves, saved
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin.serve.failures import Refused
from reco_plugin.serve.wire import decode_image


def png_header(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of one bit per pixel with these compressed pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """30,000 x 30,000 pixels in about 110 kB."""
    packer, rows = zlib.compressobj(9), bytes(3751 * 100)
    return png_header(30_000, 30_000, b"".join(packer.compress(rows) for _ in range(300)) + packer.flush())


class TestInsideJson:
    def test_forms_of_base64_are_read(self) -> None:
        raw = bytes(range(256))
        plain = base64.b64encode(raw).decode()
        for text in (
            plain,
            plain.rstrip("="),
            base64.urlsafe_b64encode(raw).decode(),
            f"{plain[:50]}\r\n{plain[50:]}",
            f"data:image/png;base64,{plain}",
            f"DATA:;base64,{plain}",
            f"data:image/png;name=fox.png;base64,{plain}",
        ):
            assert decode_image(text, max_bytes=256) == raw

    @pytest.mark.parametrize(
        "text", ["", "a fox!", "a red fox", "data:image/png,%89PNG", "data:image/png;base64,", "é" * 8, "A"]
    )
    def test_what_is_no_base64_is_named(self, text: str) -> None:
        with pytest.raises(Refused, match="data URI or base64") as raised:
            decode_image(text, max_bytes=100)
        assert (raised.value.failure.status, raised.value.failure.code) == (400, "image_not_base64")

    def test_a_url_is_not_fetched(self) -> None:
        with pytest.raises(Refused, match="send the image as a data URI") as raised:
            decode_image("http://images.example/fox.png", max_bytes=100)
        assert (raised.value.failure.status, raised.value.failure.code) == (400, "image_url_forbidden")

    def test_size_is_limited_before_decoding(self) -> None:
        with pytest.raises(Refused, match="limit is 100") as raised:
            decode_image(base64.b64encode(bytes(10_000)).decode(), max_bytes=100)
        assert raised.value.failure.status == 413

    def test_a_long_text_is_not_searched_for_a_header(self) -> None:
        with pytest.raises(Refused, match="must be a data URI or base64"):
            decode_image("data:" + ";a" * 1_000_000 + ";base64,", max_bytes=10_000_000)


class TestFiles:
    """What the service answers to each kind of file."""

    def answer(self, client: TestClient, data: bytes) -> dict[str, Any]:
        encoded = base64.b64encode(data).decode()
        response = client.post("/v1/embeddings", json={"model": "clip", "input": [{"image": encoded}]})
        return dict(response.json() if response.is_error else response.json()["data"][0])

    def vector(self, client: TestClient, data: bytes) -> np.ndarray:
        answer = self.answer(client, data)
        assert "error" not in answer, answer
        vector = np.array(answer["embedding"])
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        return vector

    def test_the_declared_type_does_not_matter(self, client: TestClient) -> None:
        webp = base64.b64encode(saved(halves("red", "blue"), "WEBP", lossless=True)).decode()
        body = {"model": "clip", "input": [f"data:image/png;base64,{webp}"], "encoding_format": "float"}
        vector = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
        assert np.allclose(vector, self.vector(client, saved(halves("red", "blue"), "PNG")), atol=1e-5)

    def test_a_damaged_file(self, client: TestClient) -> None:
        whole = saved(Image.effect_noise((64, 64), 50), "PNG")
        error = self.answer(client, whole[: len(whole) // 2])["error"]
        assert error["code"] == "image_decode_failed" and error["message"].startswith("input[0]: ")

    def test_text_that_happens_to_be_base64(self, client: TestClient) -> None:
        assert self.answer(client, b"no image at all")["error"]["code"] == "image_decode_failed"

    def test_a_decompression_bomb_is_refused_by_its_header(self, client: TestClient) -> None:
        data = bomb()
        assert len(data) < 300_000
        error = self.answer(client, data)["error"]
        assert error["code"] == "image_too_large" and "limit" in error["message"]
        within_pillows_own_limit = png_header(10_000, 8_000, b"")  # 80 million; ours is 64
        assert self.answer(client, within_pillows_own_limit)["error"]["code"] == "image_too_large"

    def test_one_bad_item_of_64(self, client: TestClient) -> None:
        batch: list[Any] = [f"a {n} red circles" for n in range(64)]
        batch[17] = {"image": "AAAA"}
        refused = client.post("/v1/embeddings", json={"model": "clip", "input": batch})
        assert (refused.status_code, refused.json()["error"]["param"]) == (415, "input[17]")
