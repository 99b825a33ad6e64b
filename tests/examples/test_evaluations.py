"""The scripts for MTEB and clip_benchmark: what these packages measure through them is what the vectors give."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Pair, Reco

pytestmark = pytest.mark.fetched

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "triton_models"


@pytest.fixture(scope="module")
def memory(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of the drawings, which nobody has open."""
    folder = tmp_path_factory.mktemp("evaluated") / "memory"
    with Reco.open(MODEL, memory=folder) as reco:
        reco.memory.add(drawings)
    return folder


@pytest.fixture
def reco(memory: Path) -> Iterator[Reco]:
    with Reco.open(MODEL, memory=memory) as opened:
        yield opened


def recall_at_1(queries: Any, gallery: Any) -> float:
    return float(np.mean(np.argmax(queries @ gallery.T, axis=1) == np.arange(len(queries))))


def test_mteb_searches_plain_pictures_with_refined_captions(reco: Reco, drawings: list[Pair]) -> None:
    pytest.importorskip("mteb", reason="mteb is not installed")
    import mteb_task

    from examples.evaluate_mteb import RecoEncoder

    task = mteb_task.DrawingsByCaption()
    task.pairs = drawings
    found = mteb_task.scores(RecoEncoder(reco, "1"), task)["recall_at_1"]
    gallery = reco.embed_images([pair.image for pair in drawings], refine=False)
    captions = [pair.text for pair in drawings]
    plain, refined = (recall_at_1(reco.embed_texts(captions, refine=on), gallery) for on in (False, True))
    assert found == pytest.approx(refined, abs=1e-5)
    assert refined != plain


def test_clip_benchmark_searches_plain_pictures_with_refined_captions(
    memory: Path, drawings: list[Pair], tmp_path: Path
) -> None:
    pytest.importorskip("clip_benchmark", reason="clip-benchmark is not installed")
    (tmp_path / "drawn" / "test").mkdir(parents=True)
    for name, text in (("test/nshards.txt", "1"), ("dataset_type.txt", "retrieval")):
        (tmp_path / "drawn" / name).write_text(text)
    with tarfile.open(tmp_path / "drawn" / "test" / "0.tar", "w") as tar:
        for number, pair in enumerate(drawings):
            png = io.BytesIO()
            pair.image.save(png, "png")  # type: ignore[union-attr]
            for ending, content in (("png", png.getvalue()), ("txt", str(pair.text).encode())):
                member = tarfile.TarInfo(f"{number:05}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = {}
    for pretrained in ("frozen", f"text@{memory}"):
        out = tmp_path / f"{pretrained.partition('@')[0]}.json"
        command = [sys.executable, "-m", "examples.evaluate_clip_benchmark", "eval", "--model_type", "reco",
                   "--model", str(MODEL), "--pretrained", pretrained, "--dataset", "wds/drawn", "--dataset_root",
                   str(tmp_path / "drawn"), "--task", "zeroshot_retrieval", "--recall_k", "1", "--no_amp",
                   "--num_workers", "0", "--output", str(out)]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[pretrained.partition("@")[0]] = json.loads(out.read_text())["metrics"]["image_retrieval_recall@1"]
    with Reco.open(MODEL, memory=memory) as opened:
        gallery = opened.embed_images([pair.image for pair in drawings], refine=False)
        captions = [str(pair.text) for pair in drawings]
        for name, refine in (("frozen", False), ("text", True)):
            expected = recall_at_1(opened.embed_texts(captions, refine=refine), gallery)
            assert found[name] == pytest.approx(expected, abs=0.001)
