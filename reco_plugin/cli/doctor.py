"""``reco doctor``: packages, settings, checks of model and memory, and a self-test."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from ..cpu import fewer_cores
from ..encoders.api_dialects import parse_address
from ..encoders.remote import load_model
from ..errors import ArtifactError, ConfigError, RecoError, SessionError
from ..files import in_home
from ..serve.service_settings import load_serve_settings
from ..settings import Settings, sources
from ..types import Pair
from ..values import counted
from .shared import JsonOption, MemoryOption, ModelOption, OpenOptions, calibration_lines, is_server, print_result

_PACKAGES = (
    *("reco-plugin", "numpy", "pillow", "tokenizers", "onnxruntime", "onnxruntime-gpu"),
    *("qdrant-edge-py", "qdrant-client", "tritonclient", "fastapi", "uvicorn", "pyarrow", "torch", "open_clip_torch"),
)
_NOT_CHECKED = {"ok": False, "detail": "settings cannot be read"}


def doctor_command(*, memory: MemoryOption = None, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Show versions and settings, and check the model, the memory and one refinement. Keys are never shown.

    Exits with 1 if a check fails.
    """
    place = OpenOptions(memory, model)
    few = fewer_cores()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.platform()}, {os.cpu_count()} cores" + (f", {few} for this process" if few else ""),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "providers": _providers(),
        "settings": {},
        "sources": sources(),
        "plain": "",
        "checks": {},
    }
    checks = report["checks"]
    checks["settings"] = _outcome(lambda: _changed_settings(place, report))
    for name, check in (
        ("packages", lambda: _packages(report["packages"])),
        ("model", lambda: _model(place.settings.model)),
        ("memory", lambda: _memory(place, report)),
        ("self-test", lambda: _self_test(place.settings.model)),
    ):
        checks[name] = _outcome(check) if checks["settings"]["ok"] else _NOT_CHECKED
    print_result(json.dumps(report, indent=2) if as_json else _render(report))
    if not all(check["ok"] for check in checks.values()):
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
    try:
        return {"ok": True, "detail": check()}
    except RecoError as error:
        return {"ok": False, "detail": str(error)}


def _changed_settings(place: OpenOptions, report: dict[str, Any]) -> str:
    """Report all settings with keys masked; return those that are not defaults."""
    load_serve_settings()
    report["settings"] = _flat(place.settings)
    defaults = _flat(Settings.model_construct())
    changed = (f"{name}={value}" for name, value in report["settings"].items() if value != defaults[name])
    return ", ".join(changed) or "all are defaults"


def _flat(settings: Settings) -> dict[str, Any]:
    """Name -> JSON value with keys masked; options of the memory are named ``memory_options.NAME``."""
    values = settings.model_dump(mode="json")
    options = values.pop("memory_options")
    return values | {f"memory_options.{name}": value for name, value in options.items()}


def _packages(found: Collection[str]) -> str:
    if {"onnxruntime", "onnxruntime-gpu"} <= set(found):
        raise ConfigError("onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, install one")
    return "they fit together"


def _model(model: str) -> str:
    artifact = load_model(model)
    artifact.verify()
    manifest = artifact.manifest
    if manifest.api:
        texts_only = ", texts only" if not parse_address(manifest.api).images else ""
        return f"{artifact.place}: {manifest.fingerprint}{texts_only}, fusion {manifest.fusion.fuser}"
    made = f"fusion {manifest.fusion.fuser}, {manifest.precision}"
    return f"{artifact.folder}: {manifest.fingerprint}, {made}, checksums match"


def _memory(place: OpenOptions, report: dict[str, Any]) -> str:
    """Open the memory, and compare its encoder with that of the model, if there is one."""
    from ..fusion.explain import why_plain
    from ..memory.header import check_fingerprint
    from ..memory.opening import check_package

    location = place.settings.memory
    if not is_server(place.settings) and not in_home(location).exists():
        check_package(place.settings)
        return f"none at {location} yet: reco memory build SOURCE makes it"
    with closing(place.open()) as store:
        header, pairs = store.header, store.count()
        try:
            wanted = load_model(place.settings.model).manifest.fingerprint
        except ArtifactError:
            wanted = None  # the check of the model reports it
        check_fingerprint(header.fingerprint, wanted, store.location)
        report["plain"] = why_plain(header, pairs)
        learned = "".join(f", {line}" for line in calibration_lines(header, pairs))
        return f"{store.kind} at {store.location}: {counted(pairs, 'pair')} of {header.fingerprint}{learned}"


def _self_test(model: str) -> str:
    """Refine a query by two pairs in RAM: it must move, and stay unit-norm."""
    import numpy as np
    from PIL import Image

    from ..reco import Reco

    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    pictures: Any = (red, blue)
    with Reco.open(model, ":memory:", on_memory_failure="fail") as reco:
        frozen = reco.embed_texts(["a red square"])
        if not np.array_equal(reco.refine(frozen, modality="text").vectors, frozen):
            raise SessionError("with an empty memory the refined vector is not the frozen one")
        if "image" not in reco.encoder.modalities:
            pictures = reco.embed_texts(["red", "blue"])
        reco.memory.add(
            Pair(colour, picture, f"a {colour} square")
            for colour, picture in zip(("red", "blue"), pictures, strict=True)
        )
        result = reco.refine(frozen, modality="text", gate=False)
        if not (result.moved > 0).all() or abs(float(np.linalg.norm(result.vectors)) - 1) > 1e-3:
            raise SessionError("refinement did not move the query, or its vector is not unit-norm")
        return f"encode, retrieve and fuse work, {_where(reco)}; the query moved by {float(result.moved[0]):.3f}"


def _where(reco: Any) -> str:
    """Describe where the encoder runs."""
    from ..encoders.runtimes.graphs import describe_engines

    if reco.encoder.client is not None:
        return f"encoder at {reco.encoder.client.address.host}"
    if reco.settings.triton_url:
        return f"graphs on {reco.settings.triton_url}"
    engines = describe_engines(load_model(reco.settings.model), reco.settings)
    return f"graphs in this process ({', '.join(sorted(set(engines.values())))})"


def _render(report: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in report["packages"].items())
    plain = report["plain"]
    lines = [
        *([f"warning    {plain}"] if plain else []),
        f"python     {report['python']}, {report['platform']}",
        f"packages   {packages}",
        f"providers  {', '.join(report['providers']) or 'none'}",
        f"set in     {', '.join(report['sources']) or 'nothing but the command line'}",
    ]
    checks: Mapping[str, Any] = report["checks"]
    lines += [f"{'ok  ' if c['ok'] else 'FAIL'}       {name}: {c['detail']}" for name, c in checks.items()]
    failed = [name for name, check in checks.items() if not check["ok"]]
    verdict = f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}" if failed else ""
    verdict = verdict or ("everything works, but queries stay plain" if plain else "everything works")
    return "\n".join([*lines, f"verdict    {verdict}"])
