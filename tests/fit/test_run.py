"""``reco fit`` from a file of vectors to a model, and what it says where refinement helps and where not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from fit_worlds import made
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.cli.app import app
from reco_plugin.cli.fit import render
from reco_plugin.data import read_records
from reco_plugin.errors import ArtifactError, ConfigError, DataError, FingerprintMismatch
from reco_plugin.evaluate.findings import Findings
from reco_plugin.evaluate.results import percent
from reco_plugin.fit import FitConfig, FitResult, run_fit
from reco_plugin.fit.config import RESULT
from reco_plugin.memory import open_memory

pytestmark = pytest.mark.xdist_group("export")  # as train/test_export.py; one worker fits for all


class Run(NamedTuple):
    config: FitConfig
    out: Path
    result: FitResult
    warned: list[str]


Fit = Callable[..., Run]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory, source: Callable[..., str], model: Path) -> Fit:
    """A function that fits to made-up pairs."""

    def run(records, **options) -> Run:
        out = tmp_path_factory.mktemp("run")
        config = FitConfig.of(**({"source": source(records), "model": str(model), "k": 5} | options))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            result = run_fit(config, out)
        return Run(config, out, result, [str(w.message) for w in caught if w.category is UserWarning])

    return run


@pytest.fixture(scope="module")
def helped(fit: Fit) -> Run:
    """Captions that a memory can answer, to an encoder that knows nothing of the images."""
    return fit(made(), group="thing")


@pytest.fixture(scope="module")
def small(fit: Fit) -> Run:
    """One candidate for few pairs, which takes the least time."""
    return fit(made(100, 3), group="thing", fuser="reco")


def line(run: Run, way: str, task: str = "text->image"):
    return next(line for line in run.result.test if (line.way, line.task) == (way, task))


def test_it_says_that_it_helps_where_it_does(helped: Run) -> None:
    assert helped.result.helps and "text" in helped.result.refine
    assert helped.result.words[0].startswith("Refinement helps on this catalogue: ")
    assert line(helped, "chosen").recall[1] > line(helped, "frozen").recall[1] + 0.3
    gain = line(helped, "chosen").gain
    assert gain is not None and gain.low > 0
    tasks = {"text->image", "image->text", "image->name", "image->image"}  # a thing has one caption
    assert {line.task for line in helped.result.test} == tasks
    assert {line.way for line in helped.result.test if line.task == "image->image"} == {"frozen", "chosen"}
    own = [note for note in helped.result.notes if "that search" in note]
    assert re.fullmatch(r"Images that search images, with target=image: [+−].* points of recall at 1 .*\.", own[0])
    assert own[1].startswith("Texts that search texts, with target=text: nothing can be said")
    assert {one.name for one in helped.result.candidates} >= {"reco", "reco, bold"}


def test_the_model_keeps_the_encoder_and_refines_what_was_chosen(helped: Run, model: Path) -> None:
    base, made_ = Artifact.load(model), Artifact.load(helped.out / "model")
    made_.verify()
    assert made_.manifest.fingerprint == base.manifest.fingerprint
    for name in ("clip_image", "clip_text"):
        assert made_.graph(name).read_bytes() == base.graph(name).read_bytes()
        assert (made_.folder / name / "config.pbtxt").read_bytes() == (base.folder / name / "config.pbtxt").read_bytes()
    queries = set(made_.manifest.policy.refine["query"])
    assert queries == {side for side in helped.result.refine if side != "names"}
    assert made_.manifest.policy.k == 5


def test_a_memory_of_the_base_model_serves_the_new_one(helped: Run, model: Path, tmp_path: Path) -> None:
    records = next(iter(read_records(helped.config.source.removesuffix("?check=0"))))
    with Reco.open(model, memory=tmp_path / "m") as before:
        before.memory.store.upsert(records)
        with pytest.warns(UserWarning, match="as by chance"):  # the encoder knows nothing of made-up things
            before.memory.calibrate()
    with Reco.open(helped.out / "model", memory=tmp_path / "m") as reco:
        assert reco.refines("text", "query")
        assert (reco.refine(records.text[:4], modality="text").moved > 0.01).all()


def test_the_report_holds_the_figures(helped: Run) -> None:
    findings = Findings.read(helped.out)
    assert [section.key for section in findings.sections] == ["main", "validation"]
    assert findings.summary[: len(helped.result.words)] == helped.result.words
    page = (helped.out / "report.html").read_text()
    assert helped.result.words[0] in page and "R@10" in page
    assert FitResult.read(helped.out) == helped.result


def test_the_memory_s_self_check_is_told(helped: Run) -> None:
    (said,) = [note for note in helped.result.notes if note.startswith("The memory's self-check: ALARM: ")]
    assert (
        "as by chance" in said
        and "worth nothing if the vectors are of another encoder" in said
        and said in render(helped.result, helped.out).replace("\n  ", " ")
    )


def test_wrong_captions_do_not_help_and_are_left_off(fit: Fit) -> None:
    run = fit(made(shuffled=True))
    assert not run.result.helps
    assert render(run.result, run.out).splitlines()[-1].startswith("next: nothing to build or serve anew")
    assert "leave it off" in run.result.words[0]
    assert run.result.words[0].startswith("No gain of refinement is certain on this catalogue: leave it off.")
    assert all("leave plain" in words for words in run.result.words[1:])
    policy = Artifact.load(run.out / "model").manifest.policy
    assert policy.refine == {"query": (), "candidate": ()}
    with Reco.open(run.out / "model", memory=":memory:") as reco:
        assert not reco.refines("text", "query") and not reco.refines("image", "query")


def test_unique_titles_are_told_and_still_decided(fit: Fit) -> None:
    run = fit(made(120, 2, unique=True), fuser="reco")
    assert any("nearly every title is unique" in note for note in run.result.notes)
    assert any("nearly every title is unique" in message for message in run.warned)
    assert run.result.counts["groups of one pair"] == 240
    assert not run.result.helps
    Artifact.load(run.out / "model").verify()


def test_killed_and_started_again_it_comes_to_the_same(small: Run, tmp_path: Path) -> None:
    code = """if True:
        import os, pathlib, signal, sys, warnings
        from reco_plugin.fit import FitConfig, run_fit
        class Killed:
            def read(self, rows, rejected):
                self.stage("read")
            def stage(self, what, rows=None):
                if what == sys.argv[2]:
                    os.kill(os.getpid(), signal.SIGKILL)
        warnings.simplefilter("ignore")
        run_fit(FitConfig.model_validate_json(sys.argv[1]), pathlib.Path(sys.argv[3]), Killed())
    """
    out = tmp_path / "run"
    for stage in ("judge reco, k=5, gate on", "write the model"):
        command = [sys.executable, "-c", code, small.config.model_dump_json(), stage, str(out)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == -9, done.stderr
        assert not (out / RESULT).exists() and not (out / "model").exists()
    assert run_fit(small.config, out) == small.result
    assert {path.name for path in out.iterdir()} == {path.name for path in small.out.iterdir()}


def test_a_folder_of_another_run_is_refused(small: Run) -> None:
    with pytest.raises(ConfigError, match=r"another configuration .* differs in seed\): choose another --out"):
        run_fit(small.config.model_copy(update={"seed": 3}), small.out)
    assert FitResult.read(small.out) == small.result


def test_too_few_groups_are_refused_before_anything_is_encoded_or_made(small: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DataError, match="100 groups are too few: 0 fall into the test part") as refused:
        run_fit(small.config.model_copy(update={"test": 0.01}), out)
    assert "that takes 1,000 groups on average" in str(refused.value)
    assert not out.exists()


def test_rows_that_cannot_be_read_are_named_where_too_few_groups_are_left(small: Run, tmp_path: Path) -> None:
    """As of a table that is not UTF-8, whose groups are few because hardly a row could be read."""
    table = tmp_path / "shop.csv"
    table.write_bytes(b"id,image,text\n1,a.png,a fox\n2,b.png,F\xfcchse\n3,c.png,K\xe4fer\n")
    (tmp_path / "a.png").write_bytes(b"not looked into")
    said = r"^1 group is too few: .*2 rows cannot be used, the first: .*shop.csv, line 3, .*save the file as UTF-8"
    with pytest.raises(DataError, match=said):
        run_fit(small.config.model_copy(update={"source": str(table), "group": None}), tmp_path / "run")


def test_a_folder_of_something_else_is_refused_and_left_alone(small: Run, tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no run of `reco fit`"):
        run_fit(small.config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "thesis.txt"]


def test_what_cannot_be_fitted(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="groups are too few"):
        fit(made(15))
    with pytest.raises(DataError, match=r"no pair has a 'thin' to group by; did you mean 'thing'\?"):
        fit(made(), group="thin")
    with pytest.raises(ArtifactError, match=r"no model at 'ViT-B-32'.*reco export --model ViT-B-32 .* --out my_model"):
        fit(made(), model="ViT-B-32")
    with pytest.raises(ConfigError, match="leave less than a fifth"):
        fit(made(), validation=0.5, test=0.4)
    with pytest.raises(DataError, match="was not finished"):
        FitResult.read(tmp_path)


def test_started_again_it_comes_to_the_same_and_tells_it_as_json(small: Run) -> None:
    before = (small.out / RESULT).read_bytes()
    words = ["fit", small.config.source, "--model", small.config.model, "--group", "thing", "--k", "5", "--json"]
    shown = CliRunner().invoke(app, [*words, "--fuser", "reco", "--out", str(small.out)])
    assert json.loads(shown.stdout) == small.result.to_dict()
    assert (small.out / RESULT).read_bytes() == before


def test_what_the_command_line_tells(helped: Run) -> None:
    text = render(helped.result, helped.out)
    assert helped.result.words[0] in " ".join(text.split())
    head, _, *table = text.partition("\n\n")[0].splitlines()
    assert " ".join(head.split()) == "test part R@1 % R@5 % R@10 % gain in R@1, 95 % interval"
    assert [" ".join(row.split()[:3]) for row in table[:3]] == [
        "text->image frozen CLIP",
        "best baseline " + percent(line(helped, "baseline").recall[1]),
        "chosen " + percent(line(helped, "chosen").recall[1]) + " " + percent(line(helped, "chosen").recall[5]),
    ]
    assert max(map(len, table)) <= 80
    legend = text.partition("\n\n")[2]
    for way in ("baseline", "chosen"):
        assert line(helped, way).label in " ".join(legend.split())
    assert max(len(row) for row in text.partition("report: ")[0].splitlines()) <= 100
    assert f"reco serve --model {helped.out / 'model'}" in text
    assert f"report: {helped.out / 'report.html'}" in text


def test_a_failure_of_the_command_line_is_one_line(small: Run) -> None:
    words = ["fit", small.config.source, "--model", small.config.model, "--out", str(small.out), "--seed", "9"]
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1 and failed.stdout == ""
    assert failed.stderr.startswith("error: ") and "differs in fuser, group, k, seed" in failed.stderr


def test_without_torch_the_install_line_is_shown(tmp_path: Path, source: Callable[..., str], model: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    command = [sys.executable, "-m", "reco_plugin", "fit", source(made()), "--model", str(model), "--out", "x"]
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 1 and "pip install 'reco-plugin[train]'" in done.stderr, done.stderr
    assert not (tmp_path / "x").exists()


def test_of_a_large_catalogue_a_sample_of_whole_groups_is_used(fit: Fit) -> None:
    run = fit(made(130, 3), group="thing", fuser="reco", max_pairs=330)
    assert 250 < run.result.counts["pairs"] <= 330 and run.result.counts["pairs"] % 3 == 0
    assert any("sample of whole groups" in note and "of 390 rows" in note for note in run.result.notes)
    assert "--max-pairs 330" in run.config.command(run.out)


def test_a_memory_is_a_catalogue_too(small: Run, model: Path, tmp_path: Path) -> None:
    fingerprint = Artifact.load(model).manifest.fingerprint
    for name, made_by in (("ours", fingerprint), ("theirs", replace(fingerprint, digest="ab" * 32))):
        with closing(open_memory(tmp_path / name, made_by)) as memory:
            memory.upsert(next(iter(read_records(small.config.source.removesuffix("?check=0"), 10_000))))
    config = small.config.model_copy(update={"source": str(tmp_path / "ours")})
    found = run_fit(config, tmp_path / "run")
    assert found.test == small.result.test
    last = render(found, tmp_path / "run").splitlines()[-1]  # it is a memory, so none is built
    assert last == f"next: reco serve --model {tmp_path / 'run' / 'model'} --memory {tmp_path / 'ours'}"
    with pytest.raises(FingerprintMismatch):
        run_fit(config.model_copy(update={"source": str(tmp_path / "theirs")}), tmp_path / "other")
    assert not (tmp_path / "other").exists()
