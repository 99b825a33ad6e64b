"""Towers that one ONNX file cannot hold: RAM and time of an export, sizes, parity, RAM at serving.

Real configurations with random weights, which are first written as a checkpoint, so that an export reads them as it
reads real ones. One model at a time, each step in a process of its own, whose peak is what the system counted. What
open_clip puts into a model before the checkpoint replaces it is a constant here: random numbers take minutes.

    python -m benchmarks.large_models            # half an hour on an idle core, 12 GB of disk; writes the page
    python -m benchmarks.large_models --only siglip2 --precision int8
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reco_plugin.artifact import Artifact
from reco_plugin.train.parity import Precision

from .page import machine, table, write_blocks

PAGE = Path("docs/measurements/large-models.md")
RESULTS = PAGE.with_suffix(".json")
SAMPLES = 16
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_SMALL_IMAGE = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
"""An image tower of no weight, where the text tower is what is looked at."""
XLM = {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
"""Of xlm-roberta-large, as its maker publishes it."""


@dataclass(frozen=True)
class Case:
    """A model to export: open_clip's configuration, and what of it is left out."""

    name: str
    model: str  # open_clip's name
    image: bool = False  # whether the image tower is the real one
    precisions: tuple[str, ...] = PRECISIONS


CASES = {
    "siglip2": Case("SigLIP2-SO400M, text tower", "ViT-SO400M-14-SigLIP2"),
    "xlm": Case("XLM-R large, text tower", "xlm-roberta-large-ViT-H-14"),
    "dfn5b": Case("DFN5B-H, both towers", "ViT-H-14-quickgelu", image=True, precisions=("fp32",)),
}


@dataclass(frozen=True)
class Export:
    """What one export took and gave."""

    case: str
    precision: str
    weights_mb: float  # of the encoder in float32
    seconds: float
    peak_mb: float  # of the export's process
    graph: str  # the larger one
    graph_mb: float
    cosine: float  # the lowest
    overlap: float
    opened_mb: float  # RAM of a process that serves it, after a batch of eight; without mapped files
    mapped_mb: float  # and of mapped files, which the system may drop


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=CASES, action="append", help="repeatable")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="repeatable")
    parser.add_argument("--scratch", type=Path, default=None, help="folder on a disk with 12 GB")
    parser.add_argument("step", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        _STEPS[chosen.step[0]](*chosen.step[1:])
        return
    for key in chosen.only or CASES:
        with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
            for precision in chosen.precision or CASES[key].precisions:
                _keep(measure(key, precision, Path(scratch)))


def measure(key: str, precision: str, scratch: Path) -> Export:
    """Export one case in one precision, and open the result, each in a process of its own."""
    checkpoint, out = scratch / "checkpoint", scratch / "out"
    if not checkpoint.exists():
        _in_process("write", key, str(checkpoint))
    began = time.perf_counter()
    text, peak = _in_process("export", str(checkpoint), precision, str(out))
    seconds = time.perf_counter() - began
    sizes = {name: file.total_bytes for name, file in Artifact.load(out).manifest.graphs.items()}
    graph = max(sizes, key=lambda name: sizes[name])
    line = re.search(rf"^{graph}\s+\S+\s+\d+\s+(\S+)\s+(\S+)", text, re.MULTILINE)
    if line is None:
        raise SystemExit(f"reco export printed no line of {graph}:\n{text}")
    served = json.loads(_in_process("serve", str(out), graph)[0])
    weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    shutil.rmtree(out)
    return Export(
        case=CASES[key].name,
        precision=precision,
        weights_mb=weights / 1e6,
        seconds=seconds,
        peak_mb=peak,
        graph=graph,
        graph_mb=sizes[graph] / 1e6,
        cosine=float(line[1]),
        overlap=float(line[2]),
        opened_mb=served["RssAnon"],
        mapped_mb=served["RssFile"],
    )


def _in_process(*step: str) -> tuple[str, float]:
    return _peak([sys.executable, "-m", "benchmarks.large_models", *step])


def _peak(command: Sequence[str]) -> tuple[str, float]:
    """Output and peak of resident memory, in MB, of a process; mapped files count, too."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        text = output.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-4000:]}")
    return text, usage.ru_maxrss * 1024 / 1e6


def write_checkpoint(key: str, folder: str) -> None:
    """Write open_clip's folder of a case, with weights of a normal distribution."""
    import numpy as np
    import open_clip
    import torch
    from safetensors.torch import save_file

    case, place = CASES[key], Path(folder)
    place.mkdir()
    config: dict[str, Any] = open_clip.get_model_config(case.model)
    text = config["text_cfg"]
    text.pop("hf_tokenizer_name", None)  # which cannot be fetched here; CLIP's own takes its place
    if "hf_model_name" in text:
        (place / "xlm").mkdir()
        (place / "xlm" / "config.json").write_text(json.dumps(XLM))
        text["hf_model_name"], text["hf_model_pretrained"] = str(place / "xlm"), False
    if not case.image:
        config["vision_cfg"] = _SMALL_IMAGE
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with torch.device("meta"):
        arguments = {name: value for name, value in config.items() if name != "custom_text"}
        custom = config.get("custom_text") or "hf_model_name" in text
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)
    random, weights = np.random.default_rng(0), {}
    for name, value in model.state_dict().items():
        norm = value.ndim == 1 and name.endswith("weight")
        array = random.standard_normal(value.numel(), np.float32)
        array *= 0.02
        array += norm
        weights[name] = torch.from_numpy(array).reshape(value.shape).to(value.dtype)
    save_file(weights, place / "open_clip_model.safetensors")


def export(checkpoint: str, precision: Precision, out: str) -> None:
    """What `reco export` does, on fewer samples."""
    import torch

    from reco_plugin.train import export as module
    from reco_plugin.train.parity import table as parity_table
    from reco_plugin.train.recipe import ExportOptions

    def constant(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor.fill_(0.01)

    for name in ("normal_", "trunc_normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"):
        setattr(torch.nn.init, name, torch.no_grad()(constant))
    setattr(module, "COUNT", SAMPLES)  # noqa: B010  # a constant of the module
    options = ExportOptions(model=f"local-dir:{checkpoint}", precision=precision)
    sys.stdout.write("\n".join(parity_table(module.export_model(options, Path(out)))))


def serve(folder: str, graph: str) -> None:
    """Print the RAM of a process that has encoded eight items, in MB."""
    from reco_plugin import Reco

    def memory() -> dict[str, float]:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        return {line[0][:-1]: int(line[1]) * 1024 / 1e6 for line in lines if line[0] in ("RssAnon:", "RssFile:")}

    with Reco.open(folder, memory=":memory:", provider="cpu", threads=1) as reco:
        if graph.endswith("text"):
            reco.encoder.texts([f"a photo of {number} red foxes in the snow" for number in range(8)])
        else:
            from reco_plugin.train.parity import sample_images

            reco.encoder.images(sample_images(8))
        sys.stdout.write(json.dumps(memory()))


_STEPS: dict[str, Callable[..., None]] = {"write": write_checkpoint, "export": export, "serve": serve}


def _keep(found: Export) -> None:
    """Put a measurement beside the others, and write the page."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"exports": []}
    kept = [one for one in known["exports"] if (one["case"], one["precision"]) != (found.case, found.precision)]
    order = [case.name for case in CASES.values()]
    exports = sorted(
        [*kept, asdict(found)], key=lambda one: (order.index(one["case"]), PRECISIONS.index(one["precision"]))
    )
    where = machine("torch", "onnxruntime", "open_clip_torch", load=False)
    RESULTS.write_text(json.dumps({"machine": where, "exports": exports}, indent=1) + "\n", encoding="utf-8")
    write_blocks(PAGE, {"exports": f"{show(exports)}\n\n{where}"})


def show(exports: Sequence[dict[str, Any]]) -> str:
    """The table of the page."""
    head = ["encoder", "`--precision`", "weights, MB", "peak of the export, MB", "share", "s", "graph, MB"]
    head += ["least cosine", "overlap", "serving, MB", "mapped, MB"]
    return table(
        head,
        (
            [
                one["case"],
                one["precision"],
                f"{one['weights_mb']:,.0f}",
                f"{one['peak_mb']:,.0f}",
                f"{one['peak_mb'] / one['weights_mb']:.2f}",
                f"{one['seconds']:.0f}",
                f"{one['graph_mb']:,.0f}",
                f"{one['cosine']:.7f}",
                f"{one['overlap']:.4f}",
                f"{one['opened_mb']:,.0f}",
                f"{one['mapped_mb']:,.0f}",
            ]
            for one in exports
        ),
        left=2,
    )


if __name__ == "__main__":
    main()
