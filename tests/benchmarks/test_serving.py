"""The parts of the serving benchmark, on a tiny run in process; what it measures is for the page, not for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import BEGIN, END, STEPS, Plan, Subject, fill, main, row, samples, table, write
from reco_plugin import Reco

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--ways", "process", "--batches", "1", "2", "--rounds", "2", "--calls", "1", "--pairs", "30"]


def test_a_row_by_hand() -> None:
    steps = dict(zip(STEPS, (0.001, 0.002, 0.003, 0.004, 0.005), strict=True))
    base = steps | {"plain": 0.004, "refined": 0.010}
    times = steps | {"plain": 0.008, "refined": 0.020}
    assert row("there", times, base) == "there | 1.00 | 2.00 | 3.00 | 4.00 | 5.00 | 20.00 | × 2.50 | × 2.00"


@pytest.mark.parametrize("modality", ["image", "text"])
def test_every_step_is_taken(modality: str, model: Path) -> None:
    with Reco.open(model, ":memory:", memory_kind="exact", on_memory_failure="fail") as reco:
        fill(reco, 30)
        times = Subject(reco).once(modality, samples(modality, 2))  # type: ignore[arg-type]
        assert reco.counters.refined.to_dict() == {modality: 1}
        assert reco.counters.fuse_s.to_dict()["count"] == 1  # random pairs, and yet something to fuse
    assert set(times) == {*STEPS, "plain", "refined"}
    assert times.pop("transport") == 0
    assert all(seconds > 0 for seconds in times.values())


def test_a_tiny_run_prints_one_row_per_batch_and_way(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(model), *TINY])
    out = capsys.readouterr().out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert [(cells[0], cells[1]) for cells in rows[1:]] == [
        ("| 1 image", "in process"),
        ("| 2 images", "in process"),
        ("| 1 text", "in process"),
        ("| 2 texts", "in process"),
    ]
    assert {len(cells) for cells in rows} == {10}
    assert all(cells[-1] == "× 1.00 |" for cells in rows[1:])
    assert f"`{model}`" in out and "cores" in out


def test_without_a_server_it_measures_in_process(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "sessions" / "triton" / "support"))
    import triton_server

    def missing() -> None:
        raise triton_server.NoServerHere("no Triton server here (make install-triton)")

    monkeypatch.setattr(triton_server.Wheel, "find", missing)
    made = table(model, Plan(modalities=("text",), batches=(1,), rounds=1, calls=1, pairs=30))
    assert [line.split(" | ")[1] for line in made.splitlines()[2:]] == ["in process"]
    assert "make install-triton" in capsys.readouterr().err


def test_it_writes_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "serving.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="no lines"):
        write(page, "new")
    assert page.read_text() == "no marks"
    assert BEGIN in (text := (ROOT / "docs" / "measurements" / "serving.md").read_text()) and END in text
