"""What a service answers the client is what ``Reco`` answers in process."""

from __future__ import annotations

import httpx
import numpy as np
from live_service import serve_on_a_free_port

from reco_plugin import Pair, Reco
from reco_plugin.client import Client

TEXTS = ["a red circle", "", " "]


def test_an_empty_text_is_embedded_though_the_apis_refuse_it_whose_dialects_are_spoken(
    reco: Reco, drawings: list[Pair]
) -> None:
    """A document without words ended a batch through a service, and none in process."""
    reco.memory.add(drawings)
    expected = reco.embed_texts(TEXTS)
    with serve_on_a_free_port(reco) as (url, _), Client(url) as client:
        np.testing.assert_allclose(client.embed_texts(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(client.explain(TEXTS).vectors, expected, atol=1e-5)
        for header in ({}, {"x-reco-empty-texts": "refuse"}):
            refused = httpx.post(f"{url}/v1/embeddings", json={"input": TEXTS}, headers=header)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "empty_text")


def test_ids_of_any_script_are_removed_however_long_they_are_together(reco: Reco, drawings: list[Pair]) -> None:
    ids = ["\u8d64" * 31 + f"{number:02}" for number in range(64)]
    reco.memory.add([Pair(id_, drawings[0].image, "a circle") for id_ in ids])
    with serve_on_a_free_port(reco, admin_key="k") as (url, _), Client(url, admin_key="k") as client:
        assert client.remove_pairs(ids) == 64
