"""Options of `reco model train`, `export` and `add`, and of Triton's configuration. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ..defaults import BATCH, DEFAULT_K, SAME_IMAGE, STEPS
from ..errors import ConfigError
from ..settings import CommandOptions, option
from ..types import FuserName

Precision = Literal["fp32", "fp16", "int8"]
Accelerator = Literal["none", "cuda", "tensorrt"]
ENGINE_CACHE = "/var/tmp"  # noqa: S108 - a folder of the server's image, which every user may write
"""Folder of the server for TensorRT engines, at which you mount a volume."""


class EncoderOptions(CommandOptions):
    """The open_clip model, which stays frozen."""

    model: str = Field(description="Take this open_clip model: a name, hf-hub:ORG/NAME or local-dir:PATH.")
    pretrained: str | None = option(None, "Load these weights: a tag of open_clip, or a checkpoint file.")
    random_weights: bool = option(
        False, "Allow a model without weights (tests only).", flag="--random-weights", unset=""
    )


class ManifestOptions(CommandOptions):
    """Entries of the manifest that no file of the encoder has."""

    precision: Precision = option("fp32", "Store the weights in this precision; int8 is for CPUs only.")
    templates: tuple[str, ...] = option(
        (),
        "Note the prompt that the encoder was trained with, {} for a name; repeat the flag for more.",
        flag="--template",
        unset="a photo of a {}.",
    )
    matryoshka: tuple[int, ...] = option(
        (),
        "Allow vectors to be cut to this dimension, if the encoder was trained for it; repeat the flag for more.",
        flag="--matryoshka",
        min=1,
        unset="none",
    )
    licenses: tuple[str, ...] = option(
        (), "Note a licence of the weights or the data; repeat the flag for more.", flag="--license", unset="none"
    )


class Recipe(EncoderOptions):
    """Configuration of a training, which its folder keeps; ``memory`` is opened by the settings."""

    file: ClassVar[str] = "recipe.json"

    source: str
    memory: str | None = option(
        None,
        "Retrieve from this memory: a folder, or a Qdrant server as grpc://host:6334?collection=NAME.",
        unset="the training pairs",
    )
    group: str | None = option(
        None, "Take pairs with the same value of this payload column for the same thing.", unset="the caption"
    )
    k: int = option(DEFAULT_K, "Retrieve this many neighbours per query.", ge=1)
    steps: int = option(STEPS, "Train for this many steps; 0 keeps the untrained start.", ge=0)
    batch: int = option(BATCH, "Use this many pairs per step.", ge=2)
    lr: float = option(1e-3, "Set the peak learning rate.", ge=0)
    heads: int = option(8, "Set the number of attention heads.", ge=1)
    drop: float = option(
        0.0, "Leave out this share of the neighbours in each step; the paper leaves out none.", ge=0, le=1
    )
    seed: int = option(0, "Draw the start, the batches and the dropout from this seed.")
    near_duplicate: float = option(SAME_IMAGE, "Hide neighbours whose image cosine is at least this.", ge=0, le=1)
    device: str = option("cpu", "Compute on this torch device.")


class ExportOptions(EncoderOptions, ManifestOptions):
    """Options of the model folder to write."""

    fusion: Path | None = option(
        None, "Add the layer that `reco model train` wrote to this folder.", unset="none: the closed form alone"
    )
    fuser: FuserName = option(
        "reco", "Refine by the closed form (reco) or by the layer of --fusion (paper) by default."
    )
    k: int | None = option(None, "Set the default number of neighbours.", ge=1, unset="of the training, or 10")


class AddOptions(ManifestOptions):
    """Options of an import."""

    revision: str | None = option(None, "Take this branch, tag or commit of a hub repository.", unset="its main branch")


class Serving(CommandOptions):
    """Triton's batches, queue and accelerator."""

    accelerator: Accelerator = option(
        "none", "Let Triton's instances on a GPU use this accelerator; those on a CPU ignore it."
    )
    max_batch: int = option(64, "Let Triton form batches of at most this many items.", ge=1)
    max_queue: int = Field(512, ge=1)  # requests in the queue at which Triton refuses new ones

    @property
    def preferred_batches(self) -> tuple[int, ...]:
        """Batch sizes to wait for, ascending; empty: requests never wait.

        Waiting pays on a GPU, where a batch costs little more than one item, but not on a CPU.

        >>> Serving(accelerator="tensorrt", max_batch=32).preferred_batches
        (8, 32)
        """
        return () if self.accelerator == "none" else tuple(sorted({max(self.max_batch // 4, 1), self.max_batch}))


def check_feasible(precision: Precision, serving: Serving) -> None:
    """Raise ConfigError for int8 on a GPU."""
    if precision == "int8" and serving.accelerator != "none":
        raise ConfigError(
            f"ONNX Runtime runs some operators of int8 graphs on CPUs only, so accelerator {serving.accelerator!r} "
            "would slow them down: use fp16, or accelerator none"
        )
