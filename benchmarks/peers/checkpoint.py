"""ViT-B/32 of random weights: a checkpoint of transformers, our model folders of it, inputs and right answers."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin.train.parity import Precision
from reco_plugin.types import MODALITIES, Modality, Vectors

TEXTS, IMAGES = 512, 96
WIDTH, HEIGHT = 640, 480
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_MERGES = 49152 - 256 - 2
_WORDS = (
    *("small", "large", "young", "old", "red", "green", "blue", "grey", "wooden", "paper", "glass", "iron", "round"),
    *("bird", "house", "boat", "lamp", "chair", "tree", "shoe", "cup", "bridge", "garden", "river", "car", "hat"),
)


@dataclass(frozen=True)
class Made:
    """What is in the folder.

    Attributes:
        folder: of all of it.
    """

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """For transformers."""
        return self.folder / "checkpoint"

    def model(self, precision: Precision) -> Path:
        """Our model folder."""
        return self.folder / precision

    def answers(self, modality: Modality) -> Vectors:
        """(N, D) of the inputs, by transformers."""
        return np.asarray(np.load(self.folder / f"{modality}.npy"), np.float32)

    def inputs(self, modality: Modality) -> list[Any]:
        """N texts, or JPEG files, which are kept since drawing them takes seconds."""
        if modality == "text":
            return texts()
        kept = self.folder / "images"
        if not kept.exists():
            _whole(kept, lambda folder: [(folder / f"{seed}.jpg").write_bytes(photo(seed)) for seed in range(IMAGES)])
        return [(kept / f"{seed}.jpg").read_bytes() for seed in range(IMAGES)]


def texts() -> list[str]:
    """Captions of seven words: nine tokens, with the two that frame a text.

    >>> texts()[0], {len(text.split()) for text in texts()}
    ('a photo of a garden lamp bird', {7})
    """
    rng = np.random.default_rng(0)
    return [f"a photo of a {' '.join(rng.choice(_WORDS, 3))}" for _ in range(TEXTS)]


def photo(seed: int) -> bytes:
    """A JPEG file of 30 kB: coloured patches that run into one another, with noise, each unlike the others.

    Vectors of random weights lie close together, those of pictures that resemble each other so close that an answer
    to another picture would pass for right.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 6, smooth.shape)
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "JPEG")
    return out.getvalue()


def make(folder: Path) -> Made:
    """Make what is missing: minutes the first time."""
    made = Made(folder)
    if not (made.checkpoint / "config.json").exists():
        _whole(made.checkpoint, _write_checkpoint)
    for modality in MODALITIES:
        if not (folder / f"{modality}.npy").exists():
            np.save(folder / f"{modality}.npy", _reference(made, modality))
    for precision in PRECISIONS:
        if not (made.model(precision) / "manifest.json").exists():
            _export(made, precision)
    return made


def _whole(folder: Path, write: Any) -> None:
    """Write a folder beside its place, then move it there."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    part.rename(folder)


def _write_checkpoint(folder: Path) -> None:
    """CLIP with the sizes of ViT-B/32 and the whole of its tokenizer, whose byte pairs open_clip carries."""
    import torch
    import transformers

    from ..families import byte_pairs, clip_tokenizer

    (vocabulary, lines), tokenizer = byte_pairs(_MERGES), clip_tokenizer(_MERGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.CLIPModel(transformers.CLIPConfig())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Files of their own for older versions of the library, which the peers have
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    transformers.CLIPImageProcessor().save_pretrained(folder)


def _reference(made: Made, modality: Modality) -> Vectors:
    """What transformers computes, one batch after the other."""
    import torch
    import transformers

    where, inputs, parts = str(made.checkpoint), made.inputs(modality), []
    model: Any = transformers.CLIPModel.from_pretrained(where)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    processor = transformers.CLIPImageProcessor.from_pretrained(where)
    for start in range(0, len(inputs), 32):
        some = inputs[start : start + 32]
        with torch.inference_mode():
            if modality == "text":
                found = model.get_text_features(**tokenizer(some, padding=True, return_tensors="pt"))
            else:
                images = [Image.open(io.BytesIO(one)).convert("RGB") for one in some]
                found = model.get_image_features(**processor(images, return_tensors="pt"))
        parts.append(torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1).numpy())
    return np.asarray(np.concatenate(parts), np.float32)


def _export(made: Made, precision: Precision) -> None:
    """Our model folder of the same checkpoint, by the way that ``reco model add`` goes."""
    from reco_plugin.towers.options import AddOptions
    from reco_plugin.towers.source import find_checkpoint
    from reco_plugin.train.checkpoint import add_checkpoint

    options = AddOptions(precision=precision)
    files = find_checkpoint(str(made.checkpoint), options)
    assert files is not None
    add_checkpoint(files, options, made.model(precision))
