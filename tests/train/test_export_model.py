"""What ``reco export`` does around the export itself, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_clip import DIMENSION
from typer.testing import CliRunner

from reco_plugin.artifact import Artifact
from reco_plugin.cli.app import app
from reco_plugin.errors import ConfigError
from reco_plugin.train import export as module
from reco_plugin.train.encoder import load_frozen
from reco_plugin.train.export import export_model
from reco_plugin.train.loop import FUSION, Fusions, save_fusions
from reco_plugin.train.model import FuserKind, FusionConfig
from reco_plugin.train.recipe import ExportOptions, Recipe

pytestmark = pytest.mark.xdist_group("export")  # as test_export.py


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be exported, without the wait."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(module, "export", lambda clip, fusions, out, **rest: seen.update(fusions=fusions, **rest) or [])
    return seen


def trained(folder: Path, dimension: int = DIMENSION, digest: str | None = None, fuser: FuserKind = "paper") -> Path:
    save_fusions(Fusions(FusionConfig(fuser, dimension)), folder / FUSION)
    (folder / Recipe.file).write_text(json.dumps({"k": 7, "source": "pairs.csv"}))
    if digest:
        (folder / f"vectors-{digest[:12]}-{12 * '0'}.npz").touch()
    return folder


def test_random_weights_are_announced(
    tmp_path: Path, write_encoder: Callable[..., str], vit_config: dict[str, Any], told: dict[str, Any]
) -> None:
    empty = write_encoder(tmp_path / "empty", vit_config, weights=False)
    with pytest.warns(UserWarning, match="RANDOM weights"):
        export_model(ExportOptions(model=empty, random_weights=True), tmp_path / "out")


def test_a_training_run_brings_its_fusion_and_defaults(vit: str, tmp_path: Path, told: dict[str, Any]) -> None:
    digest = load_frozen(vit).digest
    export_model(ExportOptions(model=vit, fusion=trained(tmp_path, digest=digest), licenses=("MIT",)), tmp_path / "out")
    assert told["fusions"].config.fuser == "paper" and told["card"].policy.k == 7
    assert told["card"].fuser == "reco", "the closed form stays the default"
    assert (told["card"].trained_on, told["card"].licenses) == ("pairs.csv", ("MIT",))
    export_model(ExportOptions(model=vit, fusion=tmp_path, k=3, fuser="paper"), tmp_path / "out")
    assert told["card"].policy.k == 3 and told["card"].fuser == "paper"


def test_without_a_training_run_there_is_the_closed_form_alone_or_an_untrained_layer(
    vit: str, tmp_path: Path, told: dict[str, Any]
) -> None:
    export_model(ExportOptions(model=vit), tmp_path / "out")
    assert told["fusions"] is None and (told["card"].fuser, told["card"].policy.k) == ("reco", 10)
    with pytest.raises(ConfigError, match="--fusion"):
        export_model(ExportOptions(model=vit, fuser="paper"), tmp_path / "out")
    export_model(ExportOptions(model=vit, fuser="paper", random_fusion=True), tmp_path / "out")
    assert told["fusions"].config.fuser == told["card"].fuser == "paper"


def test_the_templates_are_clips_own_unless_others_are_given(vit: str, tmp_path: Path, told: dict[str, Any]) -> None:
    export_model(ExportOptions(model=vit), tmp_path / "out")
    assert told["card"].templates == ("a photo of a {}.",)
    export_model(ExportOptions(model=vit, templates=("{}", "an icon of {}")), tmp_path / "out")
    assert told["card"].templates == ("{}", "an icon of {}")
    told.clear()
    with pytest.raises(ConfigError, match=r"template 'a photo' has no \{\}"):
        export_model(ExportOptions(model=vit, templates=("a photo",)), tmp_path / "out")
    assert told == {}


def test_a_fusion_of_another_encoder_is_refused(vit: str, tmp_path: Path, told: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="16-d, the encoder 40-d"):
        export_model(ExportOptions(model=vit, fusion=trained(tmp_path, 16)), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"trained on another encoder \(sha256 0123456789ab\)"):
        export_model(ExportOptions(model=vit, fusion=trained(tmp_path, digest="0123456789abcdef")), tmp_path / "out")
    assert told == {} and not (tmp_path / "out").exists()


def test_the_command_prints_what_was_compared_and_writes_the_folder(vit: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    run = trained(tmp_path, fuser="mean")
    arguments = ["model", "export", "--model", vit, "--out", str(out), "--license", "MIT, mine"]
    arguments += ["--fusion", str(run)]
    result = CliRunner().invoke(
        app,
        [*arguments, "--template", "{} icon", "--accelerator", "tensorrt", "--max-batch", "8", "--precision", "fp16"],
    )
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith(("clip_", "mean_"))]
    assert [line[0] for line in lines] == list(Artifact.load(out).manifest.graphs)
    assert len(lines) == 4
    for line in lines:
        assert float(line[3]) > 0.999 and 0.9 <= float(line[4]) <= 1
    manifest = Artifact.load(out).manifest
    assert manifest.licenses == ("MIT, mine",) and manifest.precision == "fp16"
    assert manifest.templates == ("{} icon",)
    config = (out / "clip_text" / "config.pbtxt").read_text()
    assert "max_batch_size: 8" in config and 'value: "tokens:8x48"' in config


def test_the_command_refuses_without_writing(vit: str, tmp_path: Path) -> None:
    arguments = [
        "model",
        "export",
        "--model",
        vit,
        "--out",
        str(tmp_path / "m"),
        "--precision",
        "int8",
        "--accelerator",
        "cuda",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0 and "int8" in result.stderr and not list(tmp_path.iterdir())
