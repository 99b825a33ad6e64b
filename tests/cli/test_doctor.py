"""reco doctor, and which model is used where none is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from reco_plugin import Reco
from reco_plugin.errors import ArtifactError
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.serve.model_routes import describe_calibration
from reco_plugin.settings import load_settings
from reco_plugin.types import Records

Run = Callable[..., Result]
IN_RAM = {"memory": ":memory:"}


def checks(run: Run, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = run("doctor", "--json", *arguments)
    return result.exit_code, json.loads(result.stdout)["checks"]


def test_doctor_is_content(memory: Path, ask: Callable[..., Any], run: Run) -> None:
    report = ask("doctor")
    assert [(name, check["ok"]) for name, check in report["checks"].items()] == [
        ("settings", True),
        ("packages", True),
        ("model", True),
        ("memory", True),
        ("self-test", True),
    ]
    assert "24 pairs" in report["checks"]["memory"]["detail"]
    assert "ONNX Runtime on the CPU" in report["checks"]["self-test"]["detail"]
    assert run("doctor").stdout.splitlines()[-1] == "verdict    everything works"


def test_a_memory_that_refines_nothing_is_said_first(work: Path, run: Run, ask: Callable[..., Any]) -> None:
    sides = np.random.default_rng(0).normal(size=(2, 100, 128)).astype(np.float32)
    image, text = sides / np.linalg.norm(sides, axis=2, keepdims=True)
    text = text[np.arange(100) % 20]  # so that the pictures of a caption could agree
    with Reco.open(memory="memory") as reco:
        reco.memory.add_records([Records([str(row) for row in range(100)], image, text, [{}] * 100)])
        calibration = reco.memory.calibration
        assert calibration is not None and calibration.reason
    plain = ask("memory", "info", "--memory", "memory")["plain"]
    assert calibration.reason in plain
    assert run("memory", "info", "--memory", "memory").stdout.splitlines()[0] == plain
    assert run("memory", "build", "--relearn", "--memory", "memory").stdout.splitlines()[0] == plain
    doctor = run("doctor", "--memory", "memory").stdout.splitlines()
    assert doctor[0].endswith(plain)
    assert doctor[-1] != "verdict    everything works"
    with Reco.open(memory="memory") as reco:
        assert describe_calibration(reco, 100) == {"calibrated": True, "plain": plain}


def test_doctor_shows_settings_and_no_key(memory: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("reco.toml").write_text('memory_timeout_s = 20.0\ntriton_headers = {authorization = "hush-2"}\n')
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "hush-1")
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert "hush" not in result.output + run("doctor").output
    assert report["sources"][0].endswith("/reco.toml") and "RECO_MEMORY_API_KEY" in report["sources"]
    detail = report["checks"]["settings"]["detail"]
    assert "memory_timeout_s=20.0" in detail and "breaker" not in detail
    Path("reco.toml").write_text("memory_timeout = 20")
    code, found = checks(run)
    assert (code, found["settings"]["ok"]) == (1, False)
    assert "memory_timeout" in found["settings"]["detail"]


def test_doctor_finds_what_is_wrong(work: Path, run: Run) -> None:
    assert "none at ./memory yet" in checks(run)[1]["memory"]["detail"]
    assert list(work.iterdir()) == []
    open_memory("memory", Fingerprint("other/clip", "cd" * 32, 128)).close()
    code, found = checks(run)
    assert (code, found["memory"]["ok"], found["model"]["ok"]) == (1, False, True)
    assert "other/clip" in found["memory"]["detail"]
    Path("memory/memory.json").write_text("{")
    assert checks(run)[1]["memory"]["ok"] is False
    code, found = checks(run, "--model", "gone", "--memory", "none")
    assert (code, found["model"]["ok"], found["memory"]["ok"], found["self-test"]["ok"]) == (1, False, True, False)


@pytest.fixture
def bare(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no model named anywhere."""
    monkeypatch.delenv("RECO_MODEL")
    return work


def test_without_a_name_the_quickstart_model_is_used_with_a_warning(
    bare: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="no model was named.*RECO_MODEL=quickstart"), Reco.open(**IN_RAM) as reco:
        assert reco.settings.model == str(model)
    monkeypatch.setenv("RECO_MODEL", "quickstart")
    with Reco.open(**IN_RAM) as reco:  # a warning would be an error here
        assert reco.settings.model == str(model)


def test_a_model_in_the_working_directory_comes_first_also_if_it_is_broken(bare: Path) -> None:
    (bare / "triton_models").mkdir()
    assert load_settings().model == "triton_models"
    with pytest.raises(ArtifactError, match="no model at 'triton_models'"):
        Reco.open(**IN_RAM)
