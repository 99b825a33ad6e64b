"""reco embed and reco doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from reco_plugin import Reco
from reco_plugin.memory import Fingerprint, open_memory

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]
TEXTS = ("a large red circle", 'größe – "blau"')


def vectors(result: Result) -> tuple[list[str], np.ndarray]:
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [row["input"] for row in rows], np.array([row["embedding"] for row in rows])


# --- embed -------------------------------------------------------------------------------------------------------


def test_embed_is_what_the_library_gives(memory: Path, catalogue: Path, run: Run, model: Path) -> None:
    image = catalogue.parent / "small-green-square.png"
    names, got = vectors(run("embed", "--text", TEXTS[0], "--text", TEXTS[1], "--image", image, "--json"))
    assert names == [*TEXTS, str(image)]
    with Reco.open(model, memory=memory) as reco:
        refined = np.concatenate([reco.embed_texts(TEXTS), reco.embed_images([image])])
        frozen = np.concatenate([reco.embed_texts(TEXTS, refine=False), reco.embed_images([image], refine=False)])
    np.testing.assert_allclose(got, refined, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    assert np.abs(got[0] - frozen[0]).max() > 1e-2  # the memory knows this caption


def test_plain_is_frozen_and_needs_no_memory(work: Path, run: Run, model: Path) -> None:
    _, got = vectors(run("embed", "--text", TEXTS[0], "--plain", "--json"))
    with Reco.open(model, memory=":memory:") as reco:
        np.testing.assert_allclose(got, reco.encoder.texts([TEXTS[0]]), atol=1e-6)
    assert list(work.iterdir()) == []


def test_an_empty_memory_is_said_where_refinement_was_asked_for(
    work: Path, memory: Path, run: Run, model: Path
) -> None:
    with Reco.open(model, memory=work / "bare"):
        pass
    asked = ("embed", "--text", TEXTS[0], "--json")
    result = run(*asked, "--memory", "bare")
    assert "warning: the memory is empty, so nothing is refined" in result.stderr
    assert vectors(result)[1] == pytest.approx(vectors(run(*asked, "--plain"))[1], abs=1e-6)
    assert run(*asked, "--memory", "bare", "--plain").stderr == run(*asked).stderr == ""


def test_role_and_refine_choose_what_the_policy_says(
    memory: Path, catalogue: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quickstart model does not refine candidate images unless it is told to, and no few pairs move them."""
    image = ("embed", "--image", catalogue.parent / "small-green-square.png", "--json")
    _, plain = vectors(run(*image, "--plain"))
    _, query = vectors(run(*image))
    _, candidate = vectors(run(*image, "--role", "candidate"))
    _, few = vectors(run(*image, "--role", "candidate", "--refine"))
    np.testing.assert_array_equal(candidate, plain)
    np.testing.assert_array_equal(few, plain)
    assert np.abs(query - plain).max() > 1e-3
    monkeypatch.setenv("RECO_FUSER", "paper")
    _, candidate = vectors(run(*image, "--role", "candidate"))
    _, forced = vectors(run(*image, "--role", "candidate", "--refine"))
    np.testing.assert_array_equal(candidate, plain)
    assert np.abs(forced - plain).max() > 1e-3


def test_input_and_out(memory: Path, work: Path, run: Run, ask: Ask) -> None:
    (work / "queries.txt").write_text("a red circle\n\n  a blue square  \n", encoding="utf-8")
    result = run("embed", "--input", "queries.txt", "--out", "vectors.npy")
    assert result.stdout == "wrote 2 x 128 float32 to vectors.npy\n"
    written = np.load(work / "vectors.npy")
    assert (written.shape, written.dtype) == ((2, 128), np.float32)
    names, shown = vectors(run("embed", "--input", "queries.txt", "--json"))
    assert names == ["a red circle", "a blue square"]
    np.testing.assert_allclose(written, shown, atol=1e-6)
    assert ask("embed", "--input", "queries.txt", "--out", "vectors.npy") == {"file": "vectors.npy", "shape": [2, 128]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --text, --image or --input"),
        (("--text", "x", "--role", "judge"), "query or candidate"),
        (("--text", "x", "--out", "no/such/folder/x.npy"), "does not exist: make it first"),
        (("--text", "x", "--memory", "typo"), "there is no memory at 'typo'"),
    ],
)
def test_embed_errors_are_one_line(
    memory: Path, work: Path, fail: Fail, arguments: tuple[str, ...], message: str
) -> None:
    assert message in fail("embed", *arguments)
    assert [path.name for path in work.iterdir()] == ["memory"]


# --- doctor ------------------------------------------------------------------------------------------------------


def test_doctor_is_content(memory: Path, ask: Ask, run: Run) -> None:
    report = ask("doctor")
    assert {name: check["ok"] for name, check in report["checks"].items()} == {
        "settings": True,
        "model": True,
        "memory": True,
        "self-test": True,
    }
    assert "24 pairs" in report["checks"]["memory"]["detail"]
    assert "CPUExecutionProvider" in report["providers"]
    assert report["packages"]["reco-plugin"]
    assert run("doctor").stdout.splitlines()[-1] == "verdict    everything works"
    assert "breaker_failures=5" in run("doctor", "--verbose").stdout
    assert "calibrated" in report["checks"]["memory"]["detail"]
    assert "clip_image, clip_text: ONNX Runtime on the CPU)" in report["checks"]["self-test"]["detail"]


def test_doctor_shows_what_is_set_and_no_key(memory: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("reco.toml").write_text('memory_timeout_s = 20.0\ntriton_headers = {authorization = "hush-2"}\n')
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "hush-1")
    monkeypatch.setenv("RECO_MEMORY_OPTIONS__SEARCH_EF", "512")
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert "hush" not in result.output + run("doctor").output
    assert report["sources"][0].endswith("/reco.toml") and "RECO_MEMORY_API_KEY" in report["sources"]
    assert report["settings"]["memory_options.search_ef"] == 512
    told = report["checks"]["settings"]["detail"]
    assert "memory_timeout_s=20.0" in told and "memory_options.search_ef=512" in told and "breaker" not in told
    assert any("memory_timeout_s (20) is longer than memory_options.timeout_s (10)" in one for one in report["advice"])
    Path("reco.toml").write_text("memory_timeout = 20")
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["checks"]["settings"]["ok"], report["settings"]) == (1, False, {})
    assert "memory_timeout" in report["checks"]["settings"]["detail"]


def test_doctor_shows_the_limits_in_force(memory: Path, run: Run, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_SERVE_QUEUE", "7")
    limits = ask("doctor")["limits"]
    assert (limits["service"]["queue"], limits["values"]["payload_levels"]) == (7, 64)
    assert "port" not in limits["service"]
    shown = run("doctor", "--verbose").stdout
    assert "queue=7, " in shown and "payload_levels=64, " in shown
    monkeypatch.setenv("RECO_SERVE_QUEUE", "-1")
    assert "FAIL       settings: queue: must be greater" in run("doctor").stdout


def test_doctor_tells_a_memory_of_another_encoder(work: Path, run: Run) -> None:
    open_memory("memory", Fingerprint("other/clip", "cd" * 32, 128)).close()
    result = run("doctor", "--json")
    checks = json.loads(result.stdout)["checks"]
    assert (result.exit_code, checks["memory"]["ok"], checks["model"]["ok"]) == (1, False, True)
    assert "other/clip" in checks["memory"]["detail"] and "model in use" in checks["memory"]["detail"]


def test_doctor_makes_no_memory(work: Path, ask: Ask) -> None:
    assert "none at ./memory yet" in ask("doctor")["checks"]["memory"]["detail"]
    assert list(work.iterdir()) == []


def test_doctor_tells_that_the_package_of_a_new_memory_is_missing(
    work: Path, run: Run, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image for a Qdrant server has none for folders: doctor said that all works, and `serve` ended at once."""
    for name in [name for name in sys.modules if name.startswith("reco_plugin.memory.edge")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    result = run("doctor", "--json")
    check = json.loads(result.stdout)["checks"]["memory"]
    assert (result.exit_code, check["ok"]) == (1, False)
    assert "qdrant-edge-py" in check["detail"]


def test_doctor_fails_without_a_model(work: Path, run: Run) -> None:
    result = run("doctor", "--model", "gone", "--json")
    checks = json.loads(result.stdout)["checks"]
    assert result.exit_code == 1
    assert (checks["model"]["ok"], checks["memory"]["ok"], checks["self-test"]["ok"]) == (False, True, False)
    assert "FAIL       model: no model at 'gone'" in run("doctor", "--model", "gone").stdout
    assert run("doctor", "--model", "gone", "--no-strict").exit_code == 0


def test_doctor_finds_a_damaged_memory(memory: Path, run: Run) -> None:
    (memory / "memory.json").write_text("{")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    assert (checks["model"]["ok"], checks["memory"]["ok"], checks["self-test"]["ok"]) == (True, False, True)
