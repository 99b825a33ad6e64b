"""What ``reco train`` and ``reco export`` are told. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ..defaults import BATCH, NEIGHBOURS, SAME_IMAGE, STEPS
from ..run_config import CommandOptions, RunConfig
from .parity import Precision
from .serving import MAX_BATCH, Accelerator, Serving, serving

TrainedKind = Literal["paper", "reco", "training-free"]


class EncoderOptions(CommandOptions):
    """Which open_clip model; it stays as it is."""

    model: str = Field(description="open_clip model: a name, hf-hub:ORG/NAME or local-dir:PATH.")
    pretrained: str | None = Field(None, description="open_clip weights tag, or a checkpoint file.")
    random_weights: bool = Field(
        False,
        description="Allow a model without weights (tests only).",
        json_schema_extra={"flag": "--random-weights", "unset": ""},
    )


class Recipe(EncoderOptions, RunConfig):
    """Everything that a training is made from; kept in its folder.

    ``memory`` is opened as the settings say (kind, key, options).
    """

    words: ClassVar[str] = "reco train"
    file: ClassVar[str] = "recipe.json"
    noun: ClassVar[str] = "recipe"

    memory: str | None = Field(
        None,
        description="Pairs to retrieve from: folder or URL of a Qdrant server.",
        json_schema_extra={"unset": "the training pairs"},
    )
    collection: str | None = Field(
        None,
        description="Collection of a Qdrant server.",
        json_schema_extra={"unset": "RECO_MEMORY_COLLECTION or reco"},
    )
    group: str | None = Field(
        None,
        description="Payload column: pairs with the same value show the same thing.",
        json_schema_extra={"unset": "the caption"},
    )
    fuser: TrainedKind = Field(
        "reco", description="reco: ours, fitted in seconds. paper: the plain layer, trained by the paper's loss."
    )
    k: int = Field(NEIGHBOURS, ge=1, description="Neighbours per query.")
    steps: int = Field(STEPS, ge=0, description="paper: training steps; 0 keeps the untrained start.")
    batch: int = Field(BATCH, ge=2, description="paper: pairs per step.")
    lr: float = Field(1e-3, ge=0, description="paper: peak learning rate.")
    heads: int = Field(8, ge=1, description="paper: attention heads.")
    seed: int = Field(0, description="paper: seed of the start, the batches and the dropout.")
    near_duplicate: float = Field(SAME_IMAGE, ge=0, le=1, description="Image cosine from which a neighbour is hidden.")
    device: str = Field("cpu", description="torch device.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="paper: precision of the fusions' arithmetic; weights and loss are fp32."
    )


class ExportOptions(EncoderOptions):
    """A model folder that is to be written, and how a Triton server is to run it."""

    fusion: Path | None = Field(
        None, description="Folder of `reco train`.", json_schema_extra={"unset": "none: training-free"}
    )
    fuser: TrainedKind = Field("training-free", description="Untrained fusion to export when --fusion is not given.")
    precision: Precision = Field(
        "fp32",
        description="Precision of the weights; with --accelerator cuda or tensorrt fp16 arithmetic, too. "
        "int8: CPU only.",
    )
    k: int | None = Field(
        None,
        ge=1,
        description="Default number of neighbours.",
        json_schema_extra={"unset": "of the training, or 10"},
    )
    templates: tuple[str, ...] = Field(
        (),
        description="Prompt that the encoder was trained with, {} for a name; repeatable.",
        json_schema_extra={"flag": "--template", "unset": "a photo of a {}."},
    )
    check: str | None = Field(
        None,
        description="Pairs to compare with torch on, as for reco train.",
        json_schema_extra={"unset": "drawn samples"},
    )
    licenses: tuple[str, ...] = Field(
        (),
        description="Licence of the weights or the data, for the manifest; repeatable.",
        json_schema_extra={"flag": "--license"},
    )
    accelerator: Accelerator = Field(
        "none", description="What speeds up Triton's instances on a GPU; those on a CPU ignore it."
    )
    max_batch: int = Field(MAX_BATCH, ge=1, description="Largest batch that Triton forms.")
    preferred_batches: tuple[int, ...] | None = Field(
        None,
        description="Batch size that Triton waits for; repeatable.",
        json_schema_extra={"flag": "--preferred-batch", "min": 1, "unset": "GPU: a quarter and the whole"},
    )
    queue_delay_us: int | None = Field(
        None,
        ge=0,
        description="Microseconds that a request waits for others to make a batch.",
        json_schema_extra={"unset": "0; with an accelerator 1000"},
    )
    engine_cache: str = Field(
        Serving.engine_cache,
        description="Folder inside the server for TensorRT's engines: mount a volume there.",
    )

    @property
    def serving(self) -> Serving:
        """What Triton is told.

        Raises:
            ConfigError: a value that cannot be used.
        """
        return serving(
            self.accelerator,
            max_batch=self.max_batch,
            preferred_batches=self.preferred_batches,
            queue_delay_us=self.queue_delay_us,
            engine_cache=self.engine_cache,
        )
