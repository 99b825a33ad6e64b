"""Options of the memory: connection, search, and creation of a new store."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import ConfigError

Quantization = Literal["none", "scalar", "binary", "product", "turbo"]
OF_A_FOLDER = frozenset({"exact", "index"})
"""Options that a memory in a folder has; a server has all."""


class MemoryOptions(BaseModel):
    """Options of a memory, as ``[memory_options]`` in ``reco.toml`` or ``RECO_MEMORY_OPTIONS__SEARCH_EF=128``.

    The last group applies when a collection is created; an existing one keeps its own. None leaves the choice to the
    store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    timeout_s: int = Field(10, ge=1, description="seconds that a call may take, waiting for a busy server included")
    write_timeout_s: int = Field(
        60, ge=1, description="the same for a write, which also waits for a server that is down"
    )

    refresh_s: float = Field(1, gt=0, description="seconds after which a search first reads the memory's header again")

    search_ef: int | None = Field(
        None,
        ge=1,
        description="candidates that the HNSW index looks at; more finds more, slower; by default 256, and on a server "
        "as many as hold 98 % of the true neighbours, measured when a large memory is calibrated",
    )
    exact: bool = Field(False, description="compare with every pair instead of using the index")
    index: Literal["auto", "off"] = Field(
        "auto",
        description="auto: from 10,000 pairs on, make and use a search index beside Edge, where FAISS is installed",
    )
    rescore: bool | None = Field(None, description="order quantised candidates by their original vectors")
    oversampling: float | None = Field(None, ge=1, description="quantised candidates per neighbour before rescoring")
    read_consistency: int | Literal["majority", "quorum", "all"] | None = Field(
        None, description="replicas that must agree on what is read"
    )

    m: int | None = Field(None, ge=0, description="HNSW edges per pair; 0 builds no index")
    ef_construct: int | None = Field(None, ge=4, description="candidates while the HNSW index is built")
    quantization: Quantization = Field("none", description="quantised copy of the vectors to search in")
    quantization_in_ram: bool | None = Field(None, description="keep the quantised copy in RAM")
    datatype: Literal["float32", "float16"] = Field("float32", description="numbers of the stored vectors")
    vectors_on_disk: bool | None = Field(None, description="read vectors from the disk instead of RAM")
    index_on_disk: bool | None = Field(None, description="read the HNSW index from the disk instead of RAM")
    payload_on_disk: bool | None = Field(None, description="read payloads from the disk instead of RAM")
    shards: int | None = Field(None, ge=1, description="shards of the collection")
    replicas: int | None = Field(None, ge=1, description="copies of each shard, on different nodes")
    write_consistency: int | None = Field(None, ge=1, description="replicas that must confirm a write")

    @model_validator(mode="after")
    def _fit_together(self) -> MemoryOptions:
        if self.write_consistency is not None and self.write_consistency > (self.replicas or self.write_consistency):
            raise ValueError(f"write_consistency {self.write_consistency} is more than the {self.replicas} replicas")
        return self

    def check_fits(self, usable: Collection[str], location: str) -> None:
        """Refuse options that a store does not have.

        Raises:
            ConfigError: naming them, the store, and the options that it has.
        """
        fields = type(self).model_fields
        chosen = {name for name in self.model_fields_set if getattr(self, name) != fields[name].default}
        if beyond := sorted(chosen - set(usable)):
            raise ConfigError(
                f"memory_options {', '.join(beyond)}: the memory in the folder {location!r} has no such option (it "
                f"follows: {', '.join(sorted(usable))}). Leave them out, or use a Qdrant server"
            )
