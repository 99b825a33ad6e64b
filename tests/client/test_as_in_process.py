"""What a service answers the client is what ``Reco`` answers in process."""

from __future__ import annotations

from live_service import serve_on_a_free_port

from reco_plugin import Pair, Reco
from reco_plugin.client import Client


def test_ids_of_any_script_are_removed_however_long_they_are_together(reco: Reco, drawings: list[Pair]) -> None:
    ids = ["\u8d64" * 31 + f"{number:02}" for number in range(64)]
    reco.memory.add([Pair(id_, drawings[0].image, "a circle") for id_ in ids])
    with serve_on_a_free_port(reco, admin_key="k") as (url, _), Client(url, admin_key="k") as client:
        assert client.remove_pairs(ids) == 64
