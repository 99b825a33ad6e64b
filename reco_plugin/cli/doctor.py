"""``reco doctor``: installed packages, settings, compatibility, and a self-test."""

from __future__ import annotations

import json
import os
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
    "openvino",
    "qdrant-edge-py",
    "qdrant-client",
    "tritonclient",
    "grpcio",
    "fastapi",
    "uvicorn",
    "pyarrow",
    "torch",
    "open_clip_torch",
)
_NOT_CHECKED = {"ok": False, "detail": "settings cannot be read"}


@reports_errors
def doctor_command(
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 when a check fails.")] = True,
) -> None:
    """Show versions, settings and fingerprints, and test encode -> retrieve -> fuse once. Keys are never shown."""
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.platform()}, {os.cpu_count()} cores",
        "packages": packages,
        "providers": _providers(),
        **_settings(model, memory, packages),
        "checks": {},
    }
    for name, check in (
        ("settings", lambda: _format_changed(model, memory)),
        ("model", lambda: _model(model)),
        ("memory", lambda: _memory(memory, model)),
        ("self-test", lambda: _self_test(model)),
    ):
        unread = name != "settings" and not report["checks"]["settings"]["ok"]
        report["checks"][name] = _NOT_CHECKED if unread else _outcome(check)
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


def _settings(model: Any, memory: str | None, packages: dict[str, str]) -> dict[str, Any]:
    """The settings; empty if they cannot be read, which the check reports."""
    from ..config import load_settings, sources
    from ..errors import ConfigError
    from ..serve.settings import load_serve_settings
    from .settings_shown import advice, flat, limits

    try:
        settings, serving = load_settings(model=model, memory=memory_location(memory)), load_serve_settings()
    except ConfigError:
        return {"settings": {}, "sources": sources(), "advice": [], "limits": {}}
    return {
        "settings": flat(settings),
        "sources": sources(),
        "advice": advice(settings, packages),
        "limits": limits(settings, serving),
    }


def _format_changed(model: Any, memory: str | None) -> str:
    from ..config import load_settings
    from ..serve.settings import load_serve_settings
    from .settings_shown import find_changed

    load_serve_settings()
    found = find_changed(load_settings(model=model, memory=memory_location(memory)))
    return ", ".join(f"{name}={value}" for name, value in found.items()) or "all are defaults"


def _model(model: Any) -> str:
    from ..artifact import Artifact
    from ..config import load_settings

    artifact = Artifact.load(load_settings(model=model).model)
    artifact.verify()
    manifest = artifact.manifest
    made = f"fusion {manifest.fusion.fuser}, {manifest.precision}"
    return f"{artifact.folder}: {manifest.fingerprint}, {made}, checksums match"


def _memory(memory: str | None, model: Any) -> str:
    """Open the memory of any encoder, and compare the encoder with the model's, if there is a model."""
    from pathlib import Path

    from ..artifact import Artifact
    from ..config import load_settings
    from ..errors import ArtifactError
    from ..memory.header import check_fingerprint
    from .memory_calibrate import trust_line
    from .stores import open_store

    location = memory_location(memory)
    if "://" not in location and not Path(location).exists():
        return f"none at {location} yet: reco memory build SOURCE makes it"
    store = open_store(memory)
    try:
        header, pairs = store.header, store.count()
        try:
            wanted = Artifact.load(load_settings(model=model).model).manifest.fingerprint
        except ArtifactError:
            wanted = None  # the check of the model reports it
        check_fingerprint(header.fingerprint, wanted, store.location)
        known = trust_line(header.trust, pairs)
        return f"{store.kind} at {store.location}: {pairs:,} pairs of {header.fingerprint}, {known}"
    finally:
        store.close()


def _self_test(model: Any) -> str:
    """Refine a query with two pairs in RAM: it must move towards its neighbour and stay unit-norm."""
    import numpy as np
    from PIL import Image

    from ..config import load_settings
    from ..errors import SessionError
    from ..reco import Reco
    from ..types import Pair

    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    named = load_settings(model=model).model  # the check of the model shows it
    with Reco.open(named, ":memory:", memory_kind="exact", on_memory_failure="fail") as reco:
        frozen = reco.embed_texts(["a red square"])
        if not np.array_equal(reco.refine(frozen, modality="text").vectors, frozen):
            raise SessionError("with an empty memory the refined vector is not the frozen one")
        reco.memory.add([Pair("red", red, "a red square"), Pair("blue", blue, "a blue square")])
        result = reco.refine(frozen, modality="text", gate=False)
        if not (result.moved > 0).all() or abs(float(np.linalg.norm(result.vectors)) - 1) > 1e-3:
            raise SessionError("refinement did not move the query, or its vector is not unit-norm")
        where = f"on {reco.settings.triton_url}" if reco.settings.triton_url else f"in this process ({_engines(reco)})"
        return f"encode, retrieve and fuse work, graphs {where}; the query moved by {float(result.moved[0]):.3f}"


def _engines(reco: Any) -> str:
    """What runs the graphs, those of one engine together."""
    from ..artifact import Artifact
    from ..sessions import describe_engines

    graphs: dict[str, list[str]] = {}
    for name, engine in describe_engines(Artifact.load(reco.settings.model), reco.settings).items():
        graphs.setdefault(engine, []).append(name)
    return "; ".join(f"{', '.join(names)}: {engine}" for engine, names in graphs.items())


def _render(report: dict[str, Any]) -> str:
    from .settings_shown import WAITS

    packages = ", ".join(f"{name} {found}" for name, found in report["packages"].items())
    lines = [
        f"python     {report['python']}, {report['platform']}",
        f"packages   {packages}",
        f"providers  {', '.join(report['providers']) or 'none'}",
        f"set in     {', '.join(report['sources']) or 'nothing but the command line'}",
    ]
    if report["settings"]:
        lines.append("waits      " + ", ".join(f"{name}={report['settings'][name]}" for name in WAITS))
    for name, bounds in report["limits"].items():
        lines.append(f"{name:<10} " + ", ".join(f"{bound}={value}" for bound, value in bounds.items()))
    lines += [f"advice     {sentence}" for sentence in report["advice"]]
    lines += [f"{'ok  ' if c['ok'] else 'FAIL'}       {name}: {c['detail']}" for name, c in report["checks"].items()]
    return "\n".join(lines)
