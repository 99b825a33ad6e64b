"""A service behind another one, in every dialect: the vectors of the model in process."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import serve_on_a_free_port, wait_until
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from reco_plugin.client import Client
from reco_plugin.encoders.api_client import ApiClient
from reco_plugin.encoders.api_dialects import parse_address
from reco_plugin.errors import SessionError
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.settings import load_settings

MODEL = Path(__file__).resolve().parents[3] / "triton_models"
TEXTS = ["a red fox", "ein Haus am See, mit Boot", "stainless steel bottle"]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="  # a PNG
DIALECTS = {
    "reco": "reco+{url}",
    "jina": "jina+{url}/v1?model=clip",
}


@pytest.mark.parametrize("address", DIALECTS.values(), ids=DIALECTS)
def test_vectors_of_a_service_are_those_of_the_model(
    address: str, local: Reco, service: str, images: list[Image.Image]
) -> None:
    with Reco.open(address.format(url=service)) as reco:
        assert reco.encoder.modalities == ("image", "text")
        assert np.abs(reco.encoder.texts(TEXTS) - local.encoder.texts(TEXTS)).max() <= 1e-5
        assert np.abs(reco.encoder.images(images) - local.encoder.images(images)).max() <= 1e-5


@pytest.mark.parametrize(("said", "coverage"), [({"coverage": 0.25}, 0.25), ({"coverage": None}, None), ({}, None)])
def test_coverage_is_that_of_the_service_where_it_says_one(said: dict[str, float], coverage: float | None) -> None:
    listed = {"data": [{"id": "clip", "name": "n", "fingerprint": "f", "dimension": 32, "k": 7, **said}]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=listed))
    with closing(ApiClient(parse_address("reco+http://shop"), load_settings(), transport)) as client:
        served = client.served_model()
    assert served is not None
    assert (served.k, served.coverage) == (7, coverage)


def test_an_api_may_have_texts_only(local: Reco, service: str, images: list[Image.Image]) -> None:
    with Reco.open(f"openai+{service}/v1?model=clip") as reco:
        assert np.abs(reco.encoder.texts(TEXTS) - local.encoder.texts(TEXTS)).max() <= 1e-5
        with pytest.raises(SessionError, match="encodes texts only"):
            reco.embed_images(images)
        with pytest.raises(SessionError, match="encodes texts only"):
            reco.memory.add([Pair("a", images[0], "a picture")])
        reco.memory.add([Pair("a", local.encoder.images(images)[0], "a picture")])  # its vector is at hand
        assert len(reco.memory) == 1


def test_a_service_with_texts_only_refuses_pictures_by_name(service: str, caplog: pytest.LogCaptureFixture) -> None:
    body = {"model": "clip", "input": ["a fox", {"image": PIXEL}]}
    with (
        Reco.open(f"openai+{service}/v1?model=clip") as reco,
        TestClient(create_app(ServeSettings(page=False), reco)) as client,
    ):
        wait_until(lambda: client.get("/readyz").status_code == 200)
        refused = client.post("/v1/embeddings", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "images_unsupported")
    assert "takes texts only, no images" in refused.text
    assert "the encoder takes texts only: pictures are refused" in caplog.text


def test_one_service_behind_another_refines_as_in_process(service: str, tmp_path: Path, drawings: list[Pair]) -> None:
    """And a memory that one of them filled opens with the other: both have the model's own fingerprint."""
    asked = [*TEXTS, *(str(pair.text) for pair in drawings[:3])]
    with Reco.open(MODEL, tmp_path / "m") as here:
        here.memory.add(drawings)
    with Reco.open(MODEL, tmp_path / "m") as here:
        expected = here.embed(asked, modality="text", refine=True)
        looked = here.embed([drawings[0].image], modality="image", refine=True).vectors
    with (
        Reco.open(f"reco+{service}", tmp_path / "m") as there,
        serve_on_a_free_port(there) as (url, _),
        Client(url) as client,
    ):
        assert np.abs(client.embed_texts(asked, refine=True) - expected.vectors).max() <= 1e-5
        assert np.abs(client.embed_images([drawings[0].image], refine=True) - looked).max() <= 1e-5  # type: ignore[list-item]
    assert expected.moved.max() > 0
