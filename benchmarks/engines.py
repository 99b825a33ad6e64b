"""How fast each engine encodes, against open_clip in eager torch: one table.

    python -m benchmarks.engines                    # ViT-B/32 of random weights, two exports and a few minutes
    python -m benchmarks.engines --exports DIRECTORY --rounds 6    # keeps the exports there, or takes them from there

All engines take turns in every round on the same inputs; a figure is the least of all rounds. Texts are short captions:
open_clip encodes all 77 tokens, the graphs are cut to 16, as our encoder does. Pixels are ready: nothing is decoded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from reco_plugin.artifact import Artifact, clip_graph
from reco_plugin.config import load_settings
from reco_plugin.preprocess import Tokenizer, cut_to_longest
from reco_plugin.sessions.openvino import Arithmetic, OpenVinoSession, fastest_arithmetic
from reco_plugin.sessions.ort import OrtSession
from reco_plugin.train.encoder import FrozenClip, load_frozen
from reco_plugin.train.export import export
from reco_plugin.train.parity import Precision
from reco_plugin.types import MODALITIES, Modality

from .markdown import table

BATCHES = (1, 8, 32)
EAGER = "open_clip, eager"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
CAPTION = "a photo of a {} red bird"
Encode = Callable[[], npt.NDArray[np.float32]]


def ways(clip: FrozenClip, models: Mapping[str, Artifact], modality: Modality, batch: int) -> dict[str, Encode]:
    """Name of an engine -> encodes the batch once, to unit-norm (B, D)."""
    plain, name = models["fp32"], clip_graph(modality)
    inputs, uncut, whole = _inputs(clip, plain, modality, batch)
    settings = load_settings()
    encode: Any = clip.model.encode_image if modality == "image" else clip.model.encode_text

    def by_torch(encode: Any, bf16: bool = False) -> npt.NDArray[np.float32]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.normalize(encode(whole).float(), dim=-1).numpy()

    sessions: dict[str, Any] = {
        f"ONNX Runtime, {precision}": OrtSession(models[precision].graph(name), settings) for precision in PRECISIONS
    }
    arithmetics: tuple[Arithmetic, ...] = tuple(dict.fromkeys(("f32", fastest_arithmetic())))
    for arithmetic in arithmetics:
        sessions[f"OpenVINO, {arithmetic}"] = OpenVinoSession(plain.graph(name), settings, arithmetic)
    sessions["OpenVINO, int8 graph"] = OpenVinoSession(models["int8"].graph(name), settings)
    found: dict[str, Encode] = {
        EAGER: partial(by_torch, encode),
        "open_clip, compiled": partial(by_torch, torch.compile(encode)),
        "open_clip, bf16": partial(by_torch, encode, bf16=True),
    }
    if modality == "text":
        whole_session = sessions["ONNX Runtime, fp32"]
        found["ONNX Runtime, fp32, 77 tokens"] = lambda: whole_session.run(uncut)["features"]
    return found | {way: lambda session=session: session.run(inputs)["features"] for way, session in sessions.items()}


def _inputs(
    clip: FrozenClip, model: Artifact, modality: Modality, batch: int
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What our graph takes, the same uncut, and the same for open_clip: normalised pixels, or all tokens."""
    if modality == "image":
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *clip.image.size, 3), dtype=np.uint8)
        mean, std = (torch.tensor(x)[:, None, None] for x in (clip.image.mean, clip.image.std))
        given = {"pixels": pixels}
        return given, given, (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    texts = [CAPTION.format(("small", "large", "young", "old")[row % 4]) for row in range(batch)]
    ids = Tokenizer(model.tokenizer, clip.text)(texts).ids
    return {"tokens": cut_to_longest(ids, clip.text)}, {"tokens": ids}, torch.from_numpy(ids).long()


def side_by_side(engines: Mapping[str, Encode], rounds: int) -> dict[str, tuple[float, float]]:
    """Engine -> least seconds of all rounds, least cosine to the first engine."""
    outputs = {name: encode() for name, encode in engines.items()}
    first = next(iter(outputs.values()))
    best = dict.fromkeys(engines, float("inf"))
    for _ in range(rounds):
        for name, encode in engines.items():
            started, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - started < 0.2:
                begun = time.perf_counter()
                encode()
                best[name] = min(best[name], time.perf_counter() - begun)
                calls += 1
    return {name: (best[name], float((first * out).sum(1).min())) for name, out in outputs.items()}


def measured(clip: FrozenClip, models: Mapping[str, Artifact], rounds: int) -> str:
    """The table: how many times as fast as eager, and the least cosine of all columns."""
    columns = [(modality, batch) for modality in reversed(MODALITIES) for batch in BATCHES]
    cells: dict[str, list[str]] = {}
    cosines: dict[str, float] = {}
    for modality, batch in columns:
        found = side_by_side(ways(clip, models, modality, batch), rounds)
        for name, (seconds, cosine) in found.items():
            cell = f"{found[EAGER][0] / seconds:.1f}" if name != EAGER else f"{seconds * 1000:.0f} ms"
            cells.setdefault(name, [""] * len(columns))[columns.index((modality, batch))] = cell
            cosines[name] = min(cosines.get(name, 1.0), cosine)
    head = ["", *(f"{modality} × {batch}" for modality, batch in columns), "least cosine"]
    return table(head, [[name, *row, f"{cosines[name]:.5f}"] for name, row in cells.items()])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exports", type=Path, help="folder of the exported models; a temporary one when unset")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with random weights")
    told = parser.parse_args()
    clip = load_frozen(told.model, random_weights=True)
    with tempfile.TemporaryDirectory() as scratch:
        models: dict[str, Artifact] = {}
        for precision in PRECISIONS:
            folder = (told.exports or Path(scratch)) / precision
            if not folder.exists():
                export(clip, None, folder, precision=precision)
            models[precision] = Artifact.load(folder)
        made = measured(clip, models, told.rounds)
    print(made)


if __name__ == "__main__":
    main()
