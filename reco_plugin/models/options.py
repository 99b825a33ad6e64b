"""Options of ``reco model``: `train`, `export` and `add`; and of Triton's configuration. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ..defaults import BATCH, DEFAULT_K, SAME_IMAGE, STEPS
from ..errors import ConfigError
from ..run_config import CommandOptions, option
from ..types import FuserName

Precision = Literal["fp32", "fp16", "int8"]
Accelerator = Literal["none", "cuda", "tensorrt"]
ENGINE_CACHE = "/var/tmp"  # noqa: S108 - of the server; everyone may write there in its image
"""Folder inside the server for TensorRT's engines: mount a volume there."""


class EncoderOptions(CommandOptions):
    """The open_clip model; it stays frozen."""

    model: str = Field(description="open_clip model: a name, hf-hub:ORG/NAME or local-dir:PATH.")
    pretrained: str | None = option(None, "open_clip weights tag, or a checkpoint file.")
    random_weights: bool = option(
        False, "Allow a model without weights (tests only).", flag="--random-weights", unset=""
    )


class ManifestOptions(CommandOptions):
    """What the manifest states about an encoder, and no file of the encoder tells."""

    precision: Precision = option(
        "fp32", "Precision of the weights; with --accelerator tensorrt, fp16 also computes in fp16. int8: CPU only."
    )
    templates: tuple[str, ...] = option(
        (),
        "Prompt that the encoder was trained with, {} for a name; repeatable.",
        flag="--template",
        unset="a photo of a {}.",
    )
    matryoshka: tuple[int, ...] = option(
        (),
        "Dimension that vectors may be cut to, if the encoder was trained for it; repeatable.",
        flag="--matryoshka",
        min=1,
        unset="none",
    )
    licenses: tuple[str, ...] = option(
        (), "Licence of the weights or the data, for the manifest; repeatable.", flag="--license", unset="none"
    )


class Recipe(EncoderOptions):
    """Configuration of a training, kept in its folder; ``memory`` is opened as the settings say."""

    file: ClassVar[str] = "recipe.json"

    source: str
    memory: str | None = option(
        None,
        "Pairs to retrieve from: a folder, or a Qdrant server as grpc://host:6334?collection=NAME.",
        unset="the training pairs",
    )
    group: str | None = option(
        None, "Payload column: pairs with the same value show the same thing.", unset="the caption"
    )
    k: int = option(DEFAULT_K, "Neighbours per query.", ge=1)
    steps: int = option(STEPS, "Training steps; 0 keeps the untrained start.", ge=0)
    batch: int = option(BATCH, "Pairs per step.", ge=2)
    lr: float = option(1e-3, "Peak learning rate.", ge=0)
    heads: int = option(8, "Attention heads.", ge=1)
    drop: float = option(0.0, "Share of neighbours that each step leaves out; the paper leaves out none.", ge=0, le=1)
    seed: int = option(0, "Seed of the start, the batches and the dropout.")
    near_duplicate: float = option(SAME_IMAGE, "Image cosine from which a neighbour is hidden.", ge=0, le=1)
    device: str = option("cpu", "torch device.")


class ExportOptions(EncoderOptions, ManifestOptions):
    """The model folder to write."""

    fusion: Path | None = option(
        None, "Folder of `reco model train`, whose layer is added.", unset="none: the closed form alone"
    )
    fuser: FuserName = option("reco", "What refines by default. reco: the closed form. paper: the layer of --fusion.")
    k: int | None = option(None, "Default number of neighbours.", ge=1, unset="of the training, or 10")


class AddOptions(ManifestOptions):
    """What is imported, beside the source."""

    name: str | None = option(None, "Name of the encoder in the manifest.", unset="of SOURCE")
    revision: str | None = option(None, "Branch, tag or commit of a hub repository.", unset="its main branch")


class Serving(CommandOptions):
    """How a Triton server runs the graphs: batches, queue, accelerator."""

    accelerator: Accelerator = option("none", "What speeds up Triton's instances on a GPU; those on a CPU ignore it.")
    max_batch: int = option(64, "Largest batch that Triton forms.", ge=1)
    max_queue: int = Field(512, ge=1)  # waiting requests from which new ones are refused

    @property
    def preferred_batches(self) -> tuple[int, ...]:
        """Batch sizes to wait for, ascending; empty: waiting requests run at once.

        On a GPU a batch costs little more than one item, so it pays to wait for others; on a CPU it does not.

        >>> Serving(accelerator="tensorrt", max_batch=32).preferred_batches
        (8, 32)
        """
        return () if self.accelerator == "none" else tuple(sorted({max(self.max_batch // 4, 1), self.max_batch}))


def check_feasible(precision: Precision, serving: Serving) -> None:
    """Refuse int8 for a GPU.

    Raises:
        ConfigError: that.
    """
    if precision == "int8" and serving.accelerator != "none":
        raise ConfigError(
            f"int8 graphs hold operators that ONNX Runtime runs on CPUs only, so accelerator {serving.accelerator!r} "
            "would slow them down: use fp16, or accelerator none"
        )
