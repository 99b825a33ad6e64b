"""A run: what is finished is kept, what changed is measured again, and a configuration gives the same figures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.errors import ConfigError
from reco_plugin.evaluate.findings import Findings
from reco_plugin.evaluate.study.config import SECTIONS, StudyConfig
from reco_plugin.evaluate.study.run import run_study
from reco_plugin.run_config import versions


class Interrupted(Exception):
    """As when the user presses Ctrl-C."""


def kept(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "sections").iterdir()}


def test_an_interrupted_run_goes_on_with_the_next_section(make_study: Any, world: Any, tmp_path: Path) -> None:
    pairs, labelled, seen = world.pairs(), world.labelled(), []

    def until_harm(items: Iterable[Any], what: str) -> Iterable[Any]:
        seen.append(what)
        if what == "wrong captions":
            raise Interrupted
        return items

    study = make_study(pairs, labelled, watch=until_harm)
    with pytest.raises(Interrupted):
        run_study(study)
    first = kept(study.folder)
    assert set(first) == {"main", "retrieval", "ablations", "baselines", "alternatives"}
    assert not (study.folder / "findings.json").exists()
    seen.clear()

    def noting(items: Iterable[Any], what: str) -> Iterable[Any]:
        seen.append(what)
        return items

    findings = run_study(make_study(pairs, labelled, watch=noting))
    assert {"main", "k", "memory as it is"} & set(seen) == set()  # of finished sections
    assert {"wrong captions", "gate: class known", "latency", "gains"} <= set(seen)
    after = kept(study.folder)
    assert {name: after[name] for name in first} == first
    assert [section.key for section in findings.sections] == list(SECTIONS)
    assert Findings.read(study.folder) == findings
    whole = run_study(make_study(pairs, labelled, folder=tmp_path / "other"))
    assert comparable(findings) == comparable(whole)
    seen.clear()
    assert run_study(make_study(pairs, labelled, watch=noting)) == findings  # times included: nothing is done again
    assert seen == ["sections"]


def comparable(findings: Findings) -> dict[str, Any]:
    """Everything but measured times."""
    stored = findings.model_dump(mode="json")
    for section in stored["sections"]:
        if section["key"] == "cost":
            section["tables"] = [table for table in section["tables"] if table["title"] != "time per query"]
    return stored


def test_a_section_of_other_data_or_options_is_measured_again(make_study: Any, world: Any) -> None:
    pairs, labelled, only = world.pairs(), world.labelled(), {"sections": ("main",)}
    first = run_study(make_study(pairs, labelled, **only))
    other = replace(labelled, labels=np.roll(labelled.labels, 1))
    second = run_study(make_study(pairs, other, **only))
    assert second.sections != first.sections
    assert run_study(make_study(pairs, labelled, **only)) == first
    third = run_study(make_study(pairs, labelled, k=1, **only))
    assert third.setup["k"] == 1
    assert third.sections != first.sections


def test_a_section_that_is_damaged_is_measured_again(make_study: Any, world: Any) -> None:
    pairs, labelled, only = world.pairs(), world.labelled(), {"sections": ("main",)}
    study = make_study(pairs, labelled, **only)
    first = run_study(study)
    (study.folder / "sections" / "main.json").write_text('{"name": "ma')
    assert run_study(make_study(pairs, labelled, **only)) == first


def test_a_run_is_extended_by_sections(make_study: Any, world: Any) -> None:
    pairs, labelled = world.pairs(), world.labelled()
    study = make_study(pairs, labelled, sections=("main",))
    run_study(study)
    before = kept(study.folder)
    findings = run_study(make_study(pairs, labelled, sections=("main", "gate")))
    assert kept(study.folder)["main"] == before["main"]
    assert [section.key for section in findings.sections] == ["main", "gate"]


def test_the_seed_decides(make_study: Any, world: Any, tmp_path: Path) -> None:
    pairs, labelled, only = world.pairs(), world.labelled(), {"sections": ("main", "baselines")}
    same, again, other = (
        run_study(make_study(pairs, labelled, folder=tmp_path / name, seed=seed, **only))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert same == again
    assert other.sections != same.sections


def test_the_summary_says_the_main_figures(make_study: Any, world: Any) -> None:
    findings = run_study(make_study(world.pairs(), world.labelled(), sections=("main", "baselines", "harm")))
    text = "\n".join(findings.summary)
    assert "with frozen CLIP" in text
    assert "with both refined" in text  # what the product does where the classes are known
    assert "Ours against the best baseline on development classes (" in text
    assert text.count("images and prompts refined in both") + text.count("ours of refined images and prompts") == 2
    assert "The worst memory for ours (images and prompts refined)" in text
    assert "With 50.0 % wrong captions, ours (images and prompts refined)" in text
    assert findings.summary[-1].startswith("A short run; --full has more")


def test_the_summary_says_what_held_back(make_study: Any, world: Any) -> None:
    """A quarter of the classes have pairs: the other prompts stay plain."""
    pairs, labelled = world.pairs(each=32), world.labelled()
    half = pairs.take(np.arange(len(pairs)) < len(pairs) // 4)
    held = run_study(make_study(half, labelled, sections=("main",)))
    (line,) = [line for line in held.summary if line.startswith("Why text gains little: ")]
    assert "of 40 class prompts have their own caption in the memory" in line
    assert "exact scores refine those alone, and the others stay plain; add pairs for 'thing " in line
    assert line in held.sections[0].notes
    far = replace(labelled, images=world.near(-world.image, 3, 0.6))
    unanswered = run_study(make_study(half, far, sections=("main",)))
    assert any(line.startswith("Why image ") for line in unanswered.summary)
    asked = run_study(make_study(half, far, sections=("main",), side="image"))
    assert not any("policy" in line for line in asked.summary)


def test_a_configuration_is_written_and_read_and_is_a_command(tmp_path: Path) -> None:
    config = StudyConfig.of(
        source="my photos",
        memory="./memory",
        models=("a", "b"),
        templates=("a {}",),
        gate=False,
        full=True,
        sections="harm, main",
    )
    config.write(tmp_path, made={"versions": versions(), "digests": {"source": "abc"}})
    assert StudyConfig.read(tmp_path / "config.json") == (config, {"source": "abc"})
    assert set(json.loads((tmp_path / "config.json").read_text())["made"]["versions"]) >= {"python", "numpy"}
    assert config.command() == (
        "reco eval study 'my photos' --no-gate --memory ./memory --model a --model b --template 'a {}' "
        "--sections main,harm --full"
    )
    assert config.digest() == config.model_copy(update={"sections": ("main",)}).digest()
    assert config.digest() != config.model_copy(update={"seed": 1}).digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no configuration of a study"),
        ("[]", "is no configuration of a study"),
        ('{"source": "x", "seeds": 3}', "seeds: is not known here"),
        ('{"source": "x", "k": 0}', "k: must be a whole number from 1 to 10,000, got 0"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        StudyConfig.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="unknown section 'mian': choose from main, "):
        StudyConfig.of(source="x", sections="mian")
