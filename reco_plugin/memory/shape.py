"""The options of a memory as Qdrant's parameters: of a new collection, and of each search."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from ..memory_options import MemoryOptions
from ..types import MODALITIES

_DATATYPES = {"float32": None, "float16": models.Datatype.FLOAT16}


def creation(dimension: int, options: MemoryOptions) -> dict[str, Any]:
    """Arguments of ``create_collection``: two named vectors, compared by cosine."""
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
    return {"vectors_config": vectors} | {name: value for name, value in arguments.items() if value is not None}


def search_params(options: MemoryOptions, k: int) -> models.SearchParams:
    """How one query is searched for."""
    quantised = options.rescore is not None or options.oversampling is not None
    quantization = models.QuantizationSearchParams(rescore=options.rescore, oversampling=options.oversampling)
    return models.SearchParams(
        hnsw_ef=None if options.exact else max(options.search_ef, k),
        exact=options.exact or None,
        quantization=quantization if quantised else None,
    )


def consistency(options: MemoryOptions) -> Any:
    """Read consistency as the client wants it; None leaves it to the server."""
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
