"""Options of ``reco train`` and ``reco export``. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ..defaults import BATCH, NEIGHBOURS, SAME_IMAGE, STEPS
from ..run_config import CommandOptions, RunConfig, option
from .parity import Precision
from .serving import MAX_BATCH, Accelerator, Serving, serving

FuserChoice = Literal["reco", "paper"]


class EncoderOptions(CommandOptions):
    """The open_clip model; it stays frozen."""

    model: str = Field(description="open_clip model: a name, hf-hub:ORG/NAME or local-dir:PATH.")
    pretrained: str | None = option(None, "open_clip weights tag, or a checkpoint file.")
    random_weights: bool = option(
        False, "Allow a model without weights (tests only).", flag="--random-weights", unset=""
    )


class Recipe(EncoderOptions, RunConfig):
    """Configuration of a training; kept in its folder.

    ``memory`` is opened as the settings say (kind, key, options).
    """

    words: ClassVar[str] = "reco train"
    file: ClassVar[str] = "recipe.json"
    noun: ClassVar[str] = "recipe"

    memory: str | None = option(
        None, "Pairs to retrieve from: folder or URL of a Qdrant server.", unset="the training pairs"
    )
    collection: str | None = option(None, "Collection of a Qdrant server.", unset="RECO_MEMORY_COLLECTION or reco")
    group: str | None = option(
        None, "Payload column: pairs with the same value show the same thing.", unset="the caption"
    )
    fuser: FuserChoice = option("paper", "paper: the plain layer, trained by the paper's loss. reco needs no training.")
    k: int = option(NEIGHBOURS, "Neighbours per query.", ge=1)
    steps: int = option(STEPS, "Training steps; 0 keeps the untrained start.", ge=0)
    batch: int = option(BATCH, "Pairs per step.", ge=2)
    lr: float = option(1e-3, "Peak learning rate.", ge=0)
    heads: int = option(8, "Attention heads.", ge=1)
    seed: int = option(0, "Seed of the start, the batches and the dropout.")
    near_duplicate: float = option(SAME_IMAGE, "Image cosine from which a neighbour is hidden.", ge=0, le=1)
    device: str = option("cpu", "torch device.")
    precision: Literal["fp32", "bf16"] = option(
        "fp32", "Precision of the fusions' arithmetic; weights and loss are fp32."
    )


class ExportOptions(EncoderOptions):
    """The model folder to write, and how a Triton server runs it."""

    fusion: Path | None = option(
        None, "Folder of `reco train`, whose layer is added.", unset="none: the closed form alone"
    )
    fuser: FuserChoice = option(
        "reco", "What refines by default. reco: the closed form. paper: the layer of --fusion, or an untrained one."
    )
    precision: Precision = option(
        "fp32", "Precision of the weights; with --accelerator cuda or tensorrt fp16 arithmetic, too. int8: CPU only."
    )
    k: int | None = option(None, "Default number of neighbours.", ge=1, unset="of the training, or 10")
    templates: tuple[str, ...] = option(
        (),
        "Prompt that the encoder was trained with, {} for a name; repeatable.",
        flag="--template",
        unset="a photo of a {}.",
    )
    check: str | None = option(None, "Pairs to compare with torch on, as for reco train.", unset="drawn samples")
    licenses: tuple[str, ...] = option(
        (), "Licence of the weights or the data, for the manifest; repeatable.", flag="--license"
    )
    accelerator: Accelerator = option("none", "What speeds up Triton's instances on a GPU; those on a CPU ignore it.")
    max_batch: int = option(MAX_BATCH, "Largest batch that Triton forms.", ge=1)
    preferred_batches: tuple[int, ...] | None = option(
        None,
        "Batch size that Triton waits for; repeatable.",
        flag="--preferred-batch",
        min=1,
        unset="GPU: a quarter and the whole",
    )
    queue_delay_us: int | None = option(
        None, "Microseconds that a request waits for others to make a batch.", ge=0, unset="0; with an accelerator 1000"
    )
    engine_cache: str = option(
        Serving.engine_cache, "Folder inside the server for TensorRT's engines: mount a volume there."
    )

    @property
    def serving(self) -> Serving:
        """Triton's configuration.

        Raises:
            ConfigError: an invalid value.
        """
        return serving(
            self.accelerator,
            max_batch=self.max_batch,
            preferred_batches=self.preferred_batches,
            queue_delay_us=self.queue_delay_us,
            engine_cache=self.engine_cache,
        )
