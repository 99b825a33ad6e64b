"""``reco eval``: what SOURCE is taken for, the page and the record, ``--tune``, and errors as one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shop_worlds import made
from some_drawings import all_drawings

from reco_plugin.demo.bench import drawing
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.sources import write_pairs

pytestmark = pytest.mark.slow

Run = Any


@pytest.fixture
def shop(work: Path) -> Path:
    """Pairs of a shop that CLIP cannot name."""
    write_pairs(work / "shop.npz", [made()])
    return work


def sentence(record: dict[str, Any]) -> str:
    return " ".join(verdict["sentence"] for verdict in record["verdicts"])


def test_vectors_need_no_model_and_the_page_is_always_written(
    shop: Path, ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECO_MODEL")
    record = ask("eval", "shop.npz", "--k", 5)
    assert {verdict["basis"] for verdict in record["verdicts"]} == {"titles"}
    assert "The captions are taken as true" in sentence(record)
    assert json.loads((shop / "eval" / "eval.json").read_text()) == record
    assert sentence(record)[:60] in (shop / "eval" / "eval.html").read_text()
    assert any("was taken for pictures with captions: 600 pictures of 150 things" in note for note in record["notes"])


def test_tune_writes_the_policy_that_it_tested(work: Path, ask: Run) -> None:
    data = all_drawings()
    lines = ["image,thing"]
    for row in data.memory_rows(("unseen",))[:1200].tolist():
        drawing(data, row).save(work / f"{row}.png")
        lines.append(f'{row}.png,"{data.by_key[data.items[row].entity].label}"')
    (work / "shop.csv").write_text("\n".join(lines), encoding="utf-8")
    record = ask("eval", "shop.csv?label=thing", "--tune", "--max-loss", 0.2, "--out", "tuned")
    shipped = [verdict["settings"] for verdict in record["verdicts"] if verdict["decision"] == "refine"]
    assert shipped[0]["model"] == "tuned/model", sentence(record)
    assert "tuned/model" in sentence(record)
    policy = Artifact.load(work / "tuned" / "model").manifest.policy
    assert policy.k == shipped[0]["k"]


def test_folders_tables_and_captions_are_told_apart_and_ask_a_memory(
    work: Path, catalogue: Path, memory: Path, ask: Run
) -> None:
    captions = ask("eval", catalogue, "--memory", memory, "--out", "a")
    assert captions["setup"]["pictures"] == "24"
    assert any("24 pairs are queries to the memory" in note for note in captions["notes"])
    rows = [line.split(",") for line in catalogue.read_text().splitlines()[1:]]
    for row in rows:
        (work / "photos" / row[3]).mkdir(parents=True, exist_ok=True)
        shutil.copy(catalogue.parent / row[1], work / "photos" / row[3])
    table = "".join(f"{catalogue.parent / row[1]},{row[3]}\n" for row in rows)
    (work / "labels.csv").write_text(f"image,label\n{table}")
    for source in ("photos", "labels.csv"):
        found = ask("eval", source, "--memory", memory, "--template", "a {} thing", "--out", source.partition(".")[0])
        assert any("taken for pictures of classes: 24 pictures" in note for note in found["notes"]), source
        assert "Prompts of the classes: 'a {} thing'." in found["notes"]


def test_a_second_run_encodes_nothing(work: Path, catalogue: Path, memory: Path, ask: Run) -> None:
    first = ask("eval", catalogue, "--memory", memory)
    kept = {path: path.stat().st_mtime_ns for path in (work / "eval" / "vectors").rglob("*.npz")}
    assert kept
    assert ask("eval", catalogue, "--memory", memory) == first
    assert {path: path.stat().st_mtime_ns for path in (work / "eval" / "vectors").rglob("*.npz")} == kept


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("shop.npz?check=0", "--max-loss", "0.1"), "--max-loss belongs to --tune"),
        (("shop.npz?check=0", "--tune", "--memory", "m"), "leave out --memory"),
        (("shop.npz?check=0", "--tune"), "--tune needs labels"),
        (("nowhere", "--tune"), "nowhere does not exist"),
        (("shop.npz?check=0", "--group", "colour"), "no pair has a 'colour' to group by"),
        (("shop.npz?check=0", "--out", "shop.npz/x"), "cannot be written to"),
    ],
)
def test_bad_input_is_one_line_that_names_it(shop: Path, fail: Run, arguments: tuple[str, ...], problem: str) -> None:
    assert problem in fail("eval", *arguments)
    assert not (shop / "eval").exists() or not list((shop / "eval").glob("eval.*"))
