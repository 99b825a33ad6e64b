"""``make gpu-check``: it says why it is skipped, and what it runs on a GPU runs on a CPU too."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.page import PAGE, filled
from reco_plugin.errors import ArtifactError
from reco_plugin.export.parity import Bounds

pytest.importorskip("torch")
import torch

from benchmarks import gpu_check
from reco_plugin.export.open_clip import load_frozen

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("export")]  # as test_export.py


def test_without_a_gpu_it_is_skipped_and_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi, on any machine
    assert gpu_check.main([]) == 0
    assert "gpu-check skipped: no NVIDIA driver here" in capsys.readouterr().out
    assert gpu_check.main(["--require"]) == 1


def test_what_it_measures(vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = load_frozen(vit)
    torch.manual_seed(0)
    parities = {"fp16": gpu_check.compared(clip, tmp_path / "m", "fp16", "cpu")}
    expected = [f"{graph}_{side}" for graph in ("clip", "paper") for side in ("image", "text")]
    assert [parity.graph for parity in parities["fp16"]] == expected
    measured = list(gpu_check.speeds(clip, tmp_path / "m", "fp16", "cpu", batches=(1, 3)))
    assert {(speed.graph, speed.length, speed.batch) for speed in measured} == {
        (graph, length, batch)
        for batch in (1, 3)
        for graph, length in (("clip_image", None), ("clip_text", 16), ("clip_text", 48), ("paper_image", gpu_check.K))
    }
    text = gpu_check.report("some card", parities, measured)  # type: ignore[arg-type]
    assert text.startswith("card: some card") and text.count("\nclip_text") == 1 + 4
    page = PAGE.read_text(encoding="utf-8")
    assert text in filled(page, gpu_check.block(text)) and "No GPU has run it." not in filled(
        page, gpu_check.block(text)
    )
    monkeypatch.setattr("reco_plugin.export.parity.BOUNDS", {"fp16": Bounds(1.1, 0.0)})
    with pytest.raises(ArtifactError, match="Nothing was written"):
        gpu_check.compared(clip, tmp_path / "n", "fp16", "cpu")
    assert not (tmp_path / "n").exists()
