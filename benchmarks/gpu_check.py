"""Export, parity and throughput on a GPU: ``make gpu-check`` writes them into docs/measurements.md.

Without a GPU it says why it does nothing.

It needs nothing but the repository: the encoder has random weights of the real size unless ``--pretrained`` names
some, which changes neither speed nor the arithmetic that is compared.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.export.export_options import Precision, Serving
from reco_plugin.export.folder import graph_specs
from reco_plugin.export.onnx_export import cases, export, fusion_inputs, measure
from reco_plugin.export.open_clip import FrozenClip, load_frozen
from reco_plugin.export.parity import Parity, check, table
from reco_plugin.export.train_layer import FusionConfig, Fusions
from reco_plugin.settings import Settings

from .page import write_blocks
from .speed.turns import take_turns

K = 10
BATCHES = (1, 8, 32, 64)
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Speed:
    """Items per second of one graph at one batch size; best of the rounds, transfers to the card included."""

    graph: str
    precision: Precision
    batch: int
    length: int | None
    items_per_s: float


def why_not() -> str | None:
    """The reason why nothing can be measured on this machine; None where it can."""
    import onnxruntime as ort

    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver here (nvidia-smi is not on the PATH)"
    if not card():
        return "nvidia-smi reports no GPU"
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} was built without CUDA: install onnxruntime-gpu instead of onnxruntime"
    return None


def card() -> str:
    """Name and driver of the first GPU, or nothing."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.strip().split("\n")[0]


def provider(name: str, precision: Precision) -> Settings:
    """What ``config.pbtxt`` tells Triton's CUDA too: float32 is computed as float32."""
    exact = name == "cuda" and precision == "fp32"
    return Settings(provider=name, provider_options={"use_tf32": "0"} if exact else {})


def compared(clip: FrozenClip, folder: Path, precision: Precision, on: str) -> list[Parity]:
    """Export to ``folder`` (which compares on the CPU) and compare again on the provider."""
    fusions = Fusions(FusionConfig(clip.dimension)).eval()
    export(clip, fusions, folder, precision=precision, serving=Serving(accelerator="cuda"))
    specs = graph_specs(clip.image, clip.text, clip.dimension, K)
    settings, found = provider(on, precision), []
    for case in cases(clip, fusions, specs):
        parity = measure(case, folder / case.spec.name / "1" / "model.onnx", settings)
        check(parity, precision)
        found.append(parity)
    return found


def speeds(
    clip: FrozenClip, folder: Path, precision: Precision, on: str, batches: tuple[int, ...] = BATCHES
) -> Iterator[Speed]:
    """Time every graph at every batch size; texts at their shortest and longest length."""
    rng, settings = np.random.default_rng(0), provider(on, precision)
    sessions = {
        name: OrtSession(folder / name / "1" / "model.onnx", settings)
        for name in ("clip_image", "clip_text", "paper_image")
    }

    def speed(graph: str, batch: int, length: int | None, inputs: dict[str, Any]) -> Speed:
        turns = take_turns({graph: lambda: sessions[graph].run(inputs)}, rounds=20)
        return Speed(graph, precision, batch, length, batch / turns.least(graph))

    for batch in batches:
        pixels = rng.integers(0, 256, (batch, *clip.image.size, 3)).astype(np.uint8)
        yield speed("clip_image", batch, None, {"pixels": pixels})
        for length in sorted({clip.text.lengths[0], clip.text.lengths[-1]}):
            tokens = rng.integers(1, 1000, (batch, length)).astype(np.int32)
            yield speed("clip_text", batch, length, {"tokens": tokens})
        yield speed("paper_image", batch, K, fusion_inputs(clip.dimension, batch, K))


def report(where: str, parities: dict[Precision, list[Parity]], measured: list[Speed]) -> str:
    """Both tables as text."""
    lines = [f"card: {where}"]
    for precision, found in parities.items():
        lines += ["", f"{precision} against torch on the CPU", *table(found)]
    lines += ["", "items per second, best of 20", "graph       length  batch" + "".join(f"{p:>10s}" for p in parities)]
    rows: dict[tuple[str, int | None, int], dict[Precision, float]] = {}
    for one in measured:
        rows.setdefault((one.graph, one.length, one.batch), {})[one.precision] = one.items_per_s
    for (graph, length, batch), rates in rows.items():
        lines.append(f"{graph:11s} {length or '':>6}  {batch:5d}" + "".join(f"{rates[p]:10.0f}" for p in parities))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Write the report; 0 where it passed or was skipped, 1 where it failed or ``--require`` finds no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32", help="open_clip model")
    parser.add_argument("--pretrained", help="weights; random ones when left out")
    parser.add_argument("--require", action="store_true", help="fail where there is no GPU")
    chosen = parser.parse_args(arguments)
    if reason := why_not():
        print(f"gpu-check skipped: {reason}")
        return int(chosen.require)
    import onnxruntime as ort

    ort.preload_dlls()  # the CUDA libraries that came as wheels with torch or with onnxruntime-gpu
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about random weights: only speed and arithmetic are measured
        clip = load_frozen(chosen.model, chosen.pretrained, random_weights=chosen.pretrained is None)
    parities: dict[Precision, list[Parity]] = {}
    measured: list[Speed] = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in PRECISIONS:
            parities[precision] = compared(clip, Path(scratch) / precision, precision, "cuda")
            measured += speeds(clip, Path(scratch) / precision, precision, "cuda")
    text = f"model: {clip.name}\n{report(card(), parities, measured)}"
    print(text)
    write_blocks(block(text))
    return 0


def block(text: str) -> dict[str, str]:
    """The report as a block of the page of measurements."""
    return {"gpu": f"```\n{text}\n```"}


if __name__ == "__main__":
    sys.exit(main())
