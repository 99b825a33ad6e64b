"""Whether a REST and a gRPC address lead to one Qdrant server: whoever listens on a host's gRPC port may be another.

What both list is compared when a client is made. Before the first write, a name is made at the REST address, which the
user gave, and looked for at the gRPC address, so nothing is ever written to a stranger.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from qdrant_client import QdrantClient, models

from ..errors import ConfigError
from .faults import is_refusal_of_key, read_fault

_MARK = "reco-same-server-"
"""How a name begins that is made to be looked for."""
_WAIT_S = 3.0
"""How long the nodes of a cluster may take to agree, and a list may change while it is compared."""
_PAUSE_S = 0.1
_STALE_S = 3600
"""A name that is older was left by a process that was killed."""
_log = logging.getLogger("reco_plugin.memory")


@dataclass(frozen=True)
class TwoAddresses:
    """Both addresses of what should be one server, and a client for each."""

    rest_url: str  # as the user gave it
    grpc_address: str  # host and port
    rest: QdrantClient
    grpc: QdrantClient

    def refuse_different(self) -> None:
        """Compare the collections and aliases that both list, as far as the key may; writes nothing.

        Raises:
            ConfigError: they are not the same.
        """
        try:
            if not _happens(lambda: _listed(self.rest) == _listed(self.grpc)):
                raise self._strangers("they do not list the same collections and aliases")
        except Exception as error:
            if not is_refusal_of_key(error):
                raise
            _log.info("the key may not list what %s and %s hold: not compared", self.rest_url, self.grpc_address)

    def show_one(self) -> None:
        """Make a name by REST, look for it by gRPC, and remove it; says so where the key may not make one.

        Raises:
            ConfigError: it is not there.
        """
        name = _new_name()
        try:
            remove = _make(self.rest, name)
        except Exception as error:
            if not is_refusal_of_key(error):
                raise
            _warn_of_unshown(self.rest_url, self.grpc_address)
            return
        try:
            if not _happens(lambda: self.grpc.collection_exists(name)):
                raise self._strangers("what is made by REST is not seen by gRPC")
        finally:
            remove()

    def _strangers(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.rest_url} and the gRPC at {self.grpc_address} are not one Qdrant server: {why}. Nothing was "
            "written. Give the gRPC port of the server that you mean, or use REST alone: the options grpc_port=… or "
            "transport=rest of memory_options"
        )


def are_one(maker: QdrantClient, watcher: QdrantClient) -> bool:
    """Whether a name that one client makes, and removes again, is seen by the other.

    False as well where its key may not make one.
    """
    name = _new_name()
    try:
        remove = _make(maker, name)
    except Exception as error:
        if not is_refusal_of_key(error):
            raise
        return False
    try:
        return watcher.collection_exists(name)
    finally:
        remove()


def _new_name() -> str:
    return f"{_MARK}{int(time.time())}-{uuid.uuid4().hex[:12]}"


@cache
def _warn_of_unshown(rest_url: str, grpc_address: str) -> None:
    _log.warning(
        "the key may not make an alias, so nothing shows that %s and the gRPC at %s are one Qdrant server, but that "
        "they list the same collections. To be sure, name one address: grpc://%s, or transport=rest in memory_options",
        *(rest_url, grpc_address, grpc_address),
    )


def _happens(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + _WAIT_S
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)
    return True


def _listed(client: QdrantClient) -> set[tuple[str, ...]]:
    """Collections, and aliases with theirs; without the names that other processes look for at this moment."""
    found: set[tuple[str, ...]] = {(each.name,) for each in client.get_collections().collections}
    found |= {(each.alias_name, each.collection_name) for each in client.get_aliases().aliases}
    return {each for each in found if not each[0].startswith(_MARK)}


def _make(client: QdrantClient, name: str) -> Callable[[], object]:
    """Make an alias of some collection, or a collection where there is none; gives what removes it again."""
    _remove_stale(client)
    for collection, *_ in sorted(each for each in _listed(client) if len(each) == 1):
        alias = models.CreateAlias(collection_name=collection, alias_name=name)
        try:
            client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        except Exception as error:
            if read_fault(error).status != 404:  # it was deleted since it was listed
                raise
        else:
            return lambda: _drop_alias(client, name)
    client.create_collection(name, vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
    return lambda: client.delete_collection(name)


def _remove_stale(client: QdrantClient) -> None:
    """Remove names that killed processes left."""
    for alias in client.get_aliases().aliases:
        if _is_stale(alias.alias_name):
            _drop_alias(client, alias.alias_name)
    for collection in client.get_collections().collections:
        if _is_stale(collection.name):
            client.delete_collection(collection.name)


def _drop_alias(client: QdrantClient, name: str) -> None:
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
    client.update_collection_aliases([drop])


def _is_stale(name: str) -> bool:
    made = name.removeprefix(_MARK).partition("-")[0] if name.startswith(_MARK) else ""
    return made.isdecimal() and int(made) < time.time() - _STALE_S
