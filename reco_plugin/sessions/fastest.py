"""``provider = "auto"``: the fastest engine for a graph on this machine, measured once and remembered."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from ..artifact import Artifact, clip_graph
from ..config import Settings, cache_folder
from ..errors import ConfigError, DataError, SessionError
from ..files import digest_texts, whole_file
from ..machine.cores import fewer_cores
from ..preprocess import Tokenizer, cut_to_longest
from .base import Arrays, Session
from .ort import ON_CPU, ON_CUDA, VERSION, OrtSession, has_cuda, on_cpu, warn_of_cpu

LEAST_COSINE = 0.9995
"""To ONNX Runtime on the same graph, as of an export in fp16."""
GAIN = 1.1
"""OpenVINO must be this many times as fast; a lead below it may be noise."""
_SAMPLES = "3"
"""Version of what is timed: a choice by other batches counts no more. 1: texts padded to 16 tokens for both engines. 2:
all threads of ONNX Runtime shared the products of the larger batch."""
_SECONDS = 0.15  # of timing per batch, but one call of each engine
_CAPTIONS = (
    "a photo of a dog",
    "two small red birds on a branch in the snow",
    "a hand-drawn map of the old harbour",
    "green",
    "an aerial view of fields after rain, 1987",
    "the logo of a bakery",
    "a bowl of noodle soup with an egg, seen from above",
    "people who wait for a night bus",
)
log = logging.getLogger(__name__)


class _Choice(BaseModel):
    """What was found out about a graph: OpenVINO's arithmetic, or None for ONNX Runtime, and why."""

    arithmetic: Literal["f32", "bf16"] | None
    why: str


def open_fastest(artifact: Artifact, name: str, settings: Settings) -> tuple[Session, str]:
    """Open a graph on CUDA, else on the faster of ONNX Runtime and OpenVINO; the text says which, and why.

    An encoder is timed at the first start; the choice is kept in the cache folder until graph, versions, processor or
    threads change. OpenVINO is never a reason to fail.

    Raises:
        ConfigError: ``provider_options`` are set, which fit one engine only.
        SessionError: damaged graph.
        MissingExtra: ONNX Runtime is not installed.
    """
    if settings.provider_options:
        raise ConfigError("provider_options need the provider that they are for, not provider='auto'")
    path, encoder = artifact.graph(name), name in (clip_graph("image"), clip_graph("text"))
    int8, plain = artifact.manifest.precision == "int8", ON_CPU
    if has_cuda() and not int8:
        try:
            return OrtSession(path, settings.model_copy(update={"provider": "cuda"})), ON_CUDA
        except SessionError as error:
            warn_of_cpu(f"CUDA was tried and failed: {error}")
            plain += f" (CUDA failed: {error})"
    cpu = settings.model_copy(update={"provider": "cpu"})
    if int8 or not encoder:
        why = "OpenVINO has no fast int8 products for it" if int8 else "a fusion is too small to gain"
        return on_cpu(artifact, name, cpu), f"{plain}: {why}"
    if (installed := _openvino_version()) is None:
        return on_cpu(artifact, name, cpu), f"{plain}: OpenVINO is not installed"
    try:
        session, why = _open_faster(artifact, name, cpu, installed)
    except Exception as error:  # of OpenVINO's, of any class; a damaged graph fails once more below
        return on_cpu(artifact, name, cpu), f"{plain}: OpenVINO failed: {error}"
    return session, f"{plain}: {why}" if isinstance(session, OrtSession) else why


def _openvino_version() -> str | None:
    try:
        return version("openvino")  # without importing it, which takes a quarter of a second
    except PackageNotFoundError:
        return None


def _open_faster(artifact: Artifact, name: str, settings: Settings, installed: str) -> tuple[Session, str]:
    path, folder = artifact.graph(name), cache_folder()
    threads = str(settings.threads or fewer_cores())
    parts = (artifact.manifest.graphs[name].sha256, VERSION, installed, _processor(), threads, _SAMPLES)
    note = folder / "engines" / f"{digest_texts(parts)}.json" if folder else None
    known = _read(note)
    if known is None:
        session, found = _compare(on_cpu(artifact, name, settings), path, settings, _samples(artifact, name))
        if _busy():
            return session, f"{found.why}, not remembered since the machine is busy"
        _write(note, found)
        return session, found.why
    if known.arithmetic is None:
        return on_cpu(artifact, name, settings), known.why
    from .openvino import OpenVinoSession

    return OpenVinoSession(path, settings, known.arithmetic), known.why


def _compare(
    plain: OrtSession, path: Path, settings: Settings, batches: Sequence[tuple[Arrays, Arrays]]
) -> tuple[Session, _Choice]:
    """Time OpenVINO against ONNX Runtime, in the fastest arithmetic that is exact enough."""
    from .openvino import OpenVinoSession, fastest_arithmetic

    why = ""
    for arithmetic in dict.fromkeys((fastest_arithmetic(), "f32")):
        other = OpenVinoSession(path, settings, arithmetic)
        cosine = min(_least_cosine(plain.run(ours), other.run(theirs)) for ours, theirs in batches)
        if not cosine >= LEAST_COSINE:  # which NaN is not either
            why += f"OpenVINO in {arithmetic} has a cosine of {cosine:.5f}, below {LEAST_COSINE}; "
            continue
        gain = float(np.prod([_gain((plain, ours), (other, theirs)) for ours, theirs in batches]) ** (1 / len(batches)))
        why += f"OpenVINO in {arithmetic} is {gain:.2f} times as fast as ONNX Runtime here, least cosine {cosine:.5f}"
        if gain >= GAIN:
            return other, _Choice(arithmetic=arithmetic, why=why)
        break
    return plain, _Choice(arithmetic=None, why=why)


def _least_cosine(ours: Arrays, theirs: Arrays) -> float:
    a, b = ours["features"], theirs["features"]
    return float((np.einsum("bd,bd->b", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def _gain(plain: tuple[Session, Arrays], other: tuple[Session, Arrays]) -> float:
    """How many times as fast the other runs its batch; both take turns, so that other work slows both."""
    best, started = [float("inf")] * 2, time.perf_counter()
    while best[0] == float("inf") or time.perf_counter() - started < _SECONDS:
        for number, (session, batch) in enumerate((plain, other)):
            begun = time.perf_counter()
            session.run(batch)
            best[number] = min(best[number], time.perf_counter() - begun)
    return best[0] / best[1]


def _busy() -> bool:
    """Whether more wants to run than there are cores, so that a timing may be far off."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def _samples(artifact: Artifact, name: str) -> list[tuple[Arrays, Arrays]]:
    """A batch of one, and a larger one: captions, or images of coloured patches with noise.

    Each as ONNX Runtime gets it, and as OpenVINO does, whose texts are of few lengths.
    """
    manifest = artifact.manifest
    if name == clip_graph("text"):
        ids = Tokenizer(artifact.tokenizer, manifest.text)(_CAPTIONS).ids
        cuts = [
            [{"tokens": cut_to_longest(part, manifest.text, exact=exact)} for part in (ids[:1], ids)]
            for exact in (True, False)
        ]
        return list(zip(*cuts, strict=True))
    rng, (height, width) = np.random.default_rng(0), manifest.image.size
    patches = rng.integers(0, 200, (4, 8, 8, 3)).repeat(-(-height // 8), 1).repeat(-(-width // 8), 2)
    pixels = (patches[:, :height, :width] + rng.integers(0, 56, (4, height, width, 3))).astype(np.uint8)
    return [({"pixels": part}, {"pixels": part}) for part in (pixels[:1], pixels)]


def _processor() -> str:
    """Name and instructions of the processor, and the number of cores."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0]
    except (OSError, ValueError):
        text = platform.processor()
    kept = [line for line in text.splitlines() if line.startswith(("model name", "flags", "Features", "CPU "))]
    return "\n".join([*(kept or [text]), platform.machine(), str(os.cpu_count())])


def _read(note: Path | None) -> _Choice | None:
    try:
        return _Choice.model_validate_json(note.read_bytes()) if note else None
    except (OSError, ValidationError):
        return None


def _write(note: Path | None, choice: _Choice) -> None:
    """Remember a choice; where that cannot be, the next start measures again."""
    if note is None:
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(note) as part:
            part.write_text(choice.model_dump_json(), "utf-8")
    except (OSError, DataError) as error:
        log.info("the choice of an engine is not remembered: %s", error)
