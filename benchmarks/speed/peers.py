"""This service beside infinity and open_clip behind FastAPI, all with ViT-B/32 of random weights.

infinity runs in an environment of its own, which the first run installs by pip (5 GB with PyPI's torch). All services
may use all cores and take turns. Ours and open_clip have the same weights, so their vectors are compared; infinity's
are checked for their shape.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from reco_plugin.export.export_options import Precision
from reco_plugin.types import MODALITIES, Modality, Vectors

from ..page import table
from ..processes import ask, free_port, running, started
from .callers import Connection, post, rate
from .inputs import DIMENSION, VIT, Given, batches, vit

INFINITY, EAGER = "infinity", "open_clip"
OURS: dict[str, Precision] = {"fp32": "fp32", "int8": "int8"}
PINS = ("infinity-emb[torch,server]==0.0.78", "aiohttp", "pillow", "torch==2.13.0", "torchvision==0.28.0")
"""infinity reads images with aiohttp and does not declare it."""
CASES: tuple[tuple[Modality, int, int], ...] = (
    *(("text", 1, callers) for callers in (1, 16, 64)),
    *(("text", 32, callers) for callers in (1, 16)),
    *(("image", 1, callers) for callers in (1, 16, 64)),
)
"""Modality, items of a request, callers."""
SECONDS, REQUESTS, START_S = 3.0, 32, 300
LEAST_COSINE: dict[str, float] = {"fp32": 0.9999, "int8": 0.98}


def peers(given: Given) -> str:
    """Rates of the peers, and of ours as multiples of them: median of the rounds, and their span."""
    rows = []
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_served(name, given)) for name in (INFINITY, EAGER, *OURS)}
        _check(ports)
        for modality, items, callers in CASES:
            requests = {name: _requests(name, modality, items) for name in ports}
            rates: dict[str, list[float]] = {name: [] for name in ports}
            for number in range(-1, given.rounds):  # the first warms up
                for name in list(ports)[:: 1 if number % 2 == 0 else -1]:
                    found, _ = rate(ports[name], requests[name], callers, SECONDS if number >= 0 else 0.5)
                    rates[name] += [found] * (number >= 0)
            peers = [f"{median(rates[name]) * items:.1f}" for name in (INFINITY, EAGER)]
            ratios = [_ratio(rates[ours], rates[other]) for other in (INFINITY, EAGER) for ours in OURS]
            rows.append([f"{modality} × {items}, {callers}", *peers, *ratios])
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    head = ["request, callers", f"{INFINITY}, items a second", f"{EAGER}, items a second"]
    return table(head + [f"{ours} ÷ {other}" for other in (INFINITY, EAGER) for ours in OURS], rows)


def _ratio(ours: list[float], others: list[float]) -> str:
    found = [mine / other for mine, other in zip(ours, others, strict=True)]
    return f"{median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def _requests(name: str, modality: Modality, items: int) -> list[bytes]:
    """Requests of one service, all different."""
    make, found = batches(modality, items), []
    for _ in range(REQUESTS):
        given = [_uri(one) for one in make()] if modality == "image" else make()
        body = {"model": "clip", "input": given}
        found.append(post("/v1/embeddings", body | {"modality": modality} if name == INFINITY else body))
    return found


def _uri(image: Image.Image) -> str:
    """A JPEG file of 640 × 480 pixels."""
    file = io.BytesIO()
    image.resize((40, 30)).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _check(ports: dict[str, int]) -> None:
    """Compare ours with open_clip's vectors, and infinity's with their shape."""
    for modality in MODALITIES:
        found: dict[str, Vectors] = {}
        for name, port in ports.items():
            with Connection(port) as call:
                data = json.loads(call(_requests(name, modality, 8)[0]))["data"]
            found[name] = np.array([row["embedding"] for row in data], np.float32)
            if found[name].shape != (8, DIMENSION) or abs(np.linalg.norm(found[name], axis=1) - 1).max() > 1e-3:
                raise RuntimeError(f"{name} answers 8 items with {found[name].shape}, or no unit vectors")
        for name, least in LEAST_COSINE.items():
            if (cosine := float((found[name] * found[EAGER]).sum(1).min())) < least:
                raise RuntimeError(f"{name}: a cosine of {cosine:.5f} to open_clip, for {modality}, below {least}")


@contextmanager
def _served(name: str, given: Given) -> Iterator[int]:
    """Run a service until the block ends; yields its port."""
    log = given.folder / f"peers-{name}.log"
    if name in OURS:
        (memory := given.folder / "peers-memory" / name).mkdir(parents=True, exist_ok=True)
        with started(vit(given.folder, OURS[name]), memory, log, ("--no-page",)) as service:
            yield int(service.url.rpartition(":")[2])
        return
    port, words = free_port(), [sys.executable, "-m", "uvicorn", "benchmarks.speed.open_clip_service:app"]
    if name == INFINITY:
        words = [str(_environment(given.folder / "peers-env")), "v2", "--model-id", str(_checkpoint(given.folder))]
        words += ["--served-model-name", "clip", "--engine", "torch", "--device", "cpu", "--url-prefix", "/v1"]
        words += ["--host", "127.0.0.1"]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    env = {key: value for key, value in (os.environ | quiet).items() if name != INFINITY or key != "PYTHONPATH"}
    ready = partial(ask, f"http://127.0.0.1:{port}/{'health' if name == INFINITY else 'readyz'}")
    with running(name, [*words, "--port", str(port)], log, ready, START_S, patience_s=20, env=env):
        yield port


def _environment(folder: Path) -> Path:
    """The program of infinity, installed if it is missing."""
    program = folder / "bin" / "infinity_emb"
    if not program.exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--only-binary", ":all:", *PINS]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    return program


def _checkpoint(folder: Path) -> Path:
    """ViT-B/32 with random weights as a checkpoint of transformers, whose CLIP has these sizes by default."""
    out = folder / "peers-checkpoint"
    if not out.exists():
        import torch
        import transformers
        from open_clip.tokenizer import SimpleTokenizer

        part = out.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        torch.manual_seed(0)
        transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(part)
        transformers.CLIPImageProcessor().save_pretrained(part)
        pairs = SimpleTokenizer()
        *known, start, end = pairs.encoder
        ids = {word: place for place, word in enumerate([*known, "<|startoftext|>", "<|endoftext|>"])}
        assert (start, end) == ("<start_of_text>", "<end_of_text>"), VIT
        (part / "vocab.json").write_text(json.dumps(ids), "utf-8")
        merges = "\n".join(" ".join(pair) for pair in pairs.bpe_ranks)
        (part / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
        named = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
        (part / "tokenizer_config.json").write_text(json.dumps(named), "utf-8")
        part.rename(out)
    return out
