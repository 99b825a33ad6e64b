"""A memory that is open while another process calibrates it, or puts another version behind its alias."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_stand_in import StandIn

from reco_plugin.errors import FingerprintMismatch
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.connection import Server
from reco_plugin.memory.server_versions import ServerVersions
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Records, Search

D = 4
MINE, OTHER = Fingerprint("mini/clip", "ab" * 32, D), Fingerprint("other/clip", "cd" * 32, D)
AXES = np.eye(D, dtype=np.float32)
Open = Callable[..., Memory]


@pytest.fixture(params=["http", "grpc"])
def opened(request: pytest.FixtureRequest, server: StandIn) -> Iterator[Open]:
    """A function that opens a collection, or an alias, by one of the transports."""
    url = server.url(request.param)
    with ExitStack() as stack:

        def open_(fingerprint: Fingerprint = MINE, collection: str = "reco", **options: Any) -> Memory:
            chosen = MemoryOptions(**options)
            memory = open_memory(url, fingerprint, collection=collection, options=chosen)
            return stack.enter_context(closing(memory))

        yield open_


def ask(memory: Memory) -> list[list[str]]:
    return memory.search(Search(AXES[:1], by="image", read="text", k=1)).ids


def version_of(server: StandIn, fingerprint: Fingerprint, opened: Open, gate: dict[str, Any], id_: str) -> str:
    """Build a finished version of one pair; returns its name."""
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions:
        name = versions.begin(fingerprint)
        new = opened(fingerprint, name)
        new.upsert(Records([id_], AXES[:1], AXES[1:2], [{}]))
        new.set_calibration(gate)
        versions.finish(name, 1)
    return name


def point_alias(server: StandIn, name: str) -> None:
    """Let the alias of the memory stand for another collection, as its owner can."""
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="reco"))
    make = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name="reco"))
    with closing(QdrantClient(url=server.url("http"), check_compatibility=False)) as owner:
        owner.update_collection_aliases([drop, make])


def use(server: StandIn, name: str) -> None:
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions:
        versions.use(name)


def test_constants_of_another_version_and_of_another_process_are_followed(server: StandIn, opened: Open) -> None:
    reader, patient = opened(refresh_s=1e-9), opened(refresh_s=1e9)
    assert ask(reader) == [[]]
    name = version_of(server, MINE, opened, {"a": 1}, "new")
    assert (ask(reader), reader.header.calibration) == ([[]], {})
    use(server, name)
    assert (ask(reader), reader.header.calibration) == ([["new"]], {"a": 1})
    same = reader.header
    ask(reader)
    assert reader.header is same  # who keeps what was read from it reads nothing anew
    opened().set_calibration({"a": 2})
    assert (ask(reader), reader.header.calibration) == ([["new"]], {"a": 2})
    assert (ask(patient), patient.header.calibration) == ([["new"]], {})


def test_an_alias_that_was_moved_to_another_encoder_is_refused_until_it_is_moved_back(
    server: StandIn, opened: Open
) -> None:
    reader = opened(refresh_s=1e-9)
    opened(OTHER, "strange").upsert(Records(["strange"], AXES[:1], AXES[1:2], [{}]))

    point_alias(server, "strange--v1")
    for _ in range(3):
        with pytest.raises(FingerprintMismatch, match="other/clip"):
            ask(reader)
    point_alias(server, "reco--v1")
    assert ask(reader) == [[]]
