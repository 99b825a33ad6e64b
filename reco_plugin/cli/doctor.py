"""``reco doctor``: what is installed, what fits together, and whether it works."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from .errors import reports_errors
from .options import JsonOption, MemoryOption, ModelOption, memory_location

_PACKAGES = (
    "reco-plugin",
    "numpy",
    "pillow",
    "tokenizers",
    "onnxruntime",
    "onnxruntime-gpu",
    "qdrant-edge-py",
    "qdrant-client",
    "pyarrow",
    "torch",
    "open_clip_torch",
)


@reports_errors
def doctor_command(
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 when a check fails.")] = True,
) -> None:
    """Show versions, execution providers and fingerprints, and test encode -> retrieve -> fuse once."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "providers": _providers(),
        "checks": {},
    }
    for name, check in (
        ("model", lambda: _model(model)),
        ("memory", lambda: _memory(memory)),
        ("self-test", lambda: _self_test(model)),
    ):
        report["checks"][name] = _outcome(check)
    typer.echo(json.dumps(report, indent=2) if as_json else _render(report))
    if strict and not all(check["ok"] for check in report["checks"].values()):
        raise typer.Exit(1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _outcome(check: Any) -> dict[str, Any]:
    from ..errors import RecoError

    try:
        return {"ok": True, "detail": check()}
    except RecoError as error:
        return {"ok": False, "detail": str(error)}


def _model(model: Any) -> str:
    from ..artifact import Artifact
    from ..config import load_settings

    artifact = Artifact.load(load_settings(model=model).model)
    artifact.verify()
    manifest = artifact.manifest
    made = f"fusion {manifest.fusion.fuser}, {manifest.precision}"
    return f"{artifact.folder}: {manifest.fingerprint}, {made}, checksums match"


def _memory(memory: str | None) -> str:
    from pathlib import Path

    from .stores import open_store

    location = memory_location(memory)
    if "://" not in location and not Path(location).exists():
        return f"none at {location} yet: reco memory add SOURCE makes it"
    store = open_store(memory)
    try:
        return f"{store.kind} at {store.location}: {store.count():,} pairs of {store.header.fingerprint}"
    finally:
        store.close()


def _self_test(model: Any) -> str:
    """Two pairs in a memory in RAM; a refined query must move towards its neighbour and stay unit-norm."""
    import numpy as np
    from PIL import Image

    from ..errors import SessionError
    from ..reco import Reco
    from ..types import Pair

    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    with Reco.open(model, ":memory:", memory_kind="exact", on_memory_failure="fail") as reco:
        frozen = reco.embed_texts(["a red square"])
        if not np.array_equal(reco.refine(frozen, modality="text").vectors, frozen):
            raise SessionError("with an empty memory the refined vector is not the frozen one")
        reco.memory.add([Pair("red", red, "a red square"), Pair("blue", blue, "a blue square")])
        result = reco.refine(frozen, modality="text", gate=False)
        if not (result.moved > 0).all() or abs(float(np.linalg.norm(result.vectors)) - 1) > 1e-3:
            raise SessionError("refinement did not move the query, or its vector is not unit-norm")
        return f"encode, retrieve and fuse work; the query moved by {float(result.moved[0]):.3f}"


def _render(report: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in report["packages"].items())
    lines = [
        f"python     {report['python']}",
        f"packages   {packages}",
        f"providers  {', '.join(report['providers']) or 'none'}",
    ]
    lines += [f"{'ok  ' if c['ok'] else 'FAIL'}       {name}: {c['detail']}" for name, c in report["checks"].items()]
    return "\n".join(lines)
