"""A Qdrant collection as a memory: create or check it, and translate memory options to Qdrant's parameters.

On a server, it is used through an alias.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from ..config import MemoryOptions
from ..defaults import SEARCH_EF
from ..errors import MemoryStoreError, MemoryUnavailable
from ..types import MODALITIES, Fingerprint
from .faults import is_refusal_of_key
from .header import Header, check_fingerprint, from_json, new_header, to_json
from .layout import Layout
from .points import WORDS
from .server import Server
from .versions import version_name, version_number

METADATA_KEY = "reco"
"""Key of the header in a collection's metadata."""
CALIBRATION_KEY = "reco_trust"
"""Key of what was learned about the pairs."""
BUILD_KEY = "reco_build"
"""Key of whether a version is finished."""
LEARNING_KEY = "reco_learning"
"""Key of who learns from the pairs now."""
FEEDBACK_KEY = "reco_feedback"
"""Key of what people said was wrong, in memories of older versions."""
BESIDE_KEY = "reco_learned"
"""Key in the metadata of the collection beside a memory's: whose it is."""
_ALIAS_S = 5.0
_DATATYPES = {"float32": None, "float16": models.Datatype.FLOAT16}


@dataclass(frozen=True)
class OpenCollection:
    """A collection that is a memory."""

    header: Header  # fingerprint and calibration
    layout: Layout = field(default_factory=Layout)  # names of its vectors and points


def open_served(
    client: QdrantClient, server: Server, name: str, fingerprint: Fingerprint | None, *, create: bool
) -> OpenCollection:
    """The collection of a server; if there is none, a first version and its alias are created."""
    run, location = server.patience.run, server.location
    if not run("open", lambda _: client.collection_exists(name)):
        if not create:
            run("open", lambda _: _refuse_unused(client, name, location))
        header = new_header(fingerprint, f"{location} (collection {name})", create=create)
        run("create", lambda _: _make_first(client, name, location, header, server.options), write=True)
    return run("open", lambda _: read_collection(client, name, location, fingerprint))


def make_collection(
    client: QdrantClient, name: str, header: Header, options: MemoryOptions, **metadata: dict[str, Any]
) -> None:
    """Create an empty collection with the header in its metadata."""
    metadata = {METADATA_KEY: to_json("qdrant", header), **metadata}
    client.create_collection(name, metadata=metadata, **_creation(header.fingerprint.dimension, options))


def name_beside(collection: str) -> str:
    """Name of the collection that holds what was learned and said of another one, which is no alias.

    >>> name_beside("reco--v3")
    'reco--v3--learned'
    """
    return f"{collection}--learned"


def delete_beside(client: QdrantClient, collection: str) -> None:
    """Delete what was learned and said of a collection that is new, or is to be deleted; only what is ours."""
    name = name_beside(collection)
    if client.collection_exists(name) and BESIDE_KEY in (client.get_collection(name).config.metadata or {}):
        client.delete_collection(name)


def read_collection(
    client: QdrantClient, name: str, location: str, fingerprint: Fingerprint | None, *, real: str | None = None
) -> OpenCollection:
    """Header and layout of an existing collection, checked against its vectors and the expected encoder.

    What lies beside the header is not read. ``real`` is the collection that an alias stands for, if that is known.

    Raises:
        FingerprintMismatch: another encoder built it.
        MemoryStoreError: it is not a memory, or its vectors do not match its metadata.
    """
    config = client.get_collection(real or name).config
    metadata = config.metadata or {}
    place = f"collection {name!r} at {location!r}"
    if METADATA_KEY not in metadata:
        raise MemoryStoreError(
            f"the {place} holds something else: its metadata has no {METADATA_KEY!r}. Choose another collection name, "
            "or use its vectors as a memory: reco memory attach --help"
        )
    header = header_of(metadata, f"the metadata of {place}")
    check_fingerprint(header.fingerprint, fingerprint, location)
    layout = Layout.from_metadata(metadata, f"the metadata of {place}")
    layout.check(config.params.vectors, header.fingerprint.dimension, f"the {place}")
    words = WORDS in (config.params.sparse_vectors or {}) and not layout.attached
    return OpenCollection(header, replace(layout, words=words))


def header_of(metadata: dict[str, Any], place: str) -> Header:
    """The header in a collection's metadata, with what was learned beside it."""
    beside = {
        "trust": metadata.get(CALIBRATION_KEY),
        "learning": metadata.get(LEARNING_KEY),
        "feedback": metadata.get(FEEDBACK_KEY),
    }
    return from_json(metadata[METADATA_KEY] | beside, place)[1]


def version_numbers(client: QdrantClient, alias: str) -> list[int]:
    """Numbers of all versions of an alias, smallest first."""
    names = (each.name for each in client.get_collections().collections)
    return sorted(number for name in names if (number := version_number(alias, name)) is not None)


def collection_of_alias(client: QdrantClient, alias: str) -> str | None:
    """The collection that an alias points to; None if there is no such alias."""
    return next((each.collection_name for each in client.get_aliases().aliases if each.alias_name == alias), None)


def create_alias(collection: str, alias: str) -> models.CreateAliasOperation:
    """The operation that creates an alias."""
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def _make_first(client: QdrantClient, name: str, location: str, header: Header, options: MemoryOptions) -> None:
    """Create version 1 and its alias; of several processes at once, one creates it and the others wait."""
    if not version_numbers(client, name):
        try:
            make_collection(client, version_name(name, 1), header, options)
        except Exception as error:
            if is_refusal_of_key(error):
                raise MemoryUnavailable(
                    f"there is no memory {name!r} at {location!r} yet, and the key may not make one. Fill it with one "
                    "that may write (RECO_MEMORY_API_KEY): reco memory build --help"
                ) from error
            if not exists_already(error):
                raise
        else:
            delete_beside(client, version_name(name, 1))  # of one that was deleted by hand
            client.update_collection_aliases([create_alias(version_name(name, 1), name)])
    _wait_for(client, name, location)


def exists_already(error: Exception) -> bool:
    """Whether a collection could not be made because there is one of the name."""
    code = getattr(error, "code", None)  # gRPC
    status = code().name if callable(code) else None
    return (isinstance(error, UnexpectedResponse) and error.status_code == 409) or (
        status in ("ALREADY_EXISTS", "INVALID_ARGUMENT", None) and "already exists" in str(error)
    )


def _wait_for(client: QdrantClient, name: str, location: str) -> None:
    end = time.monotonic() + _ALIAS_S
    while not client.collection_exists(name):
        if time.monotonic() > end:
            _refuse_unused(client, name, location)
        time.sleep(0.1)


def _refuse_unused(client: QdrantClient, name: str, location: str) -> None:
    """Refuse a memory of whose versions none is in use, and tell which there are; nothing where there is none.

    Raises:
        MemoryStoreError: there is one or more.
    """
    finished = {
        version: is_finished(client.get_collection(version).config.metadata or {})
        for version in (version_name(name, number) for number in version_numbers(client, name))
    }
    if finished:
        known = ", ".join(f"{version}{'' if done else ' (unfinished)'}" for version, done in finished.items())
        newest = next((version for version, done in reversed(finished.items()) if done), None)
        way = f"Put one to use: reco memory use {newest} --memory {location}"
        if newest is None:
            way = "Go on with its building: the same reco memory build with --resume"
        raise MemoryStoreError(
            f"no version of the memory {name!r} at {location!r} is in use (no alias stands for one), but there are: "
            f"{known}. {way}"
        )


def is_finished(metadata: dict[str, Any]) -> bool:
    """Whether the metadata of a version says that it is completely built."""
    return (metadata.get(BUILD_KEY) or {}).get("finished") is not False


def _creation(dimension: int, options: MemoryOptions) -> dict[str, Any]:
    """Arguments of ``create_collection``: two named vectors, compared by cosine, and the words of the captions."""
    vectors = {
        str(modality): models.VectorParams(
            size=dimension,
            distance=models.Distance.COSINE,
            on_disk=options.vectors_on_disk,
            datatype=_DATATYPES[options.datatype],
        )
        for modality in MODALITIES
    }
    index = {"m": options.m, "ef_construct": options.ef_construct, "on_disk": options.index_on_disk}
    arguments = {
        "hnsw_config": models.HnswConfigDiff(**index) if any(value is not None for value in index.values()) else None,
        "quantization_config": _quantization(options),
        "on_disk_payload": options.payload_on_disk,
        "shard_number": options.shards,
        "replication_factor": options.replicas,
        "write_consistency_factor": options.write_consistency,
    }
    words = {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    return {"vectors_config": vectors, "sparse_vectors_config": words} | {
        name: value for name, value in arguments.items() if value is not None
    }


def search_params(options: MemoryOptions, k: int, measured: int = SEARCH_EF) -> models.SearchParams:
    """Qdrant's parameters of one query for k neighbours; ``measured`` counts where the options name no depth."""
    quantised = options.rescore is not None or options.oversampling is not None
    quantization = models.QuantizationSearchParams(rescore=options.rescore, oversampling=options.oversampling)
    return models.SearchParams(
        hnsw_ef=None if options.exact else max(options.search_ef or measured, k),
        exact=options.exact or None,
        quantization=quantization if quantised else None,
    )


def consistency(options: MemoryOptions) -> Any:
    """Read consistency for the client; None is the server's default."""
    wanted = options.read_consistency
    return models.ReadConsistencyType(wanted) if isinstance(wanted, str) else wanted


def _quantization(options: MemoryOptions) -> Any:
    ram = options.quantization_in_ram
    match options.quantization:
        case "none":
            return None
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=ram)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=ram))
        case "product":
            product = models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=ram)
            return models.ProductQuantization(product=product)
        case "turbo":
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=ram))
