"""``reco report`` as a user calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from reco_plugin.cli.app import app


def reco(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


def failed(*arguments: object) -> str:
    result = reco(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_a_run_gets_page_document_charts_and_data_and_their_paths_are_printed(run_folder):
    printed = [Path(line) for line in reco(run_folder).stdout.splitlines()]
    assert {path.name for path in printed} == {
        "report.html",
        "report.md",
        "report.json",
        "report-headline.svg",
        "report-ablations-1.svg",
        "report-ablations-2.svg",
        "report-classes-1.svg",
        "report-cost-more-1.svg",
    }
    assert {path for path in run_folder.iterdir() if path.name.startswith("report")} == set(printed)
    stored = json.loads((run_folder / "findings.json").read_text(encoding="utf-8"))
    assert json.loads((run_folder / "report.json").read_text(encoding="utf-8")) == stored


def test_out_title_and_formats_are_heeded(run_folder, tmp_path):
    out = tmp_path / "new" / "folder"
    assert reco(run_folder, "--out", out, "--title", "Mine & yours", "--formats", "html").exit_code == 0
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert "<title>Mine &amp; yours</title>" in (out / "report.html").read_text(encoding="utf-8")


def test_several_runs_go_beside_each_other_by_default(tmp_path, make_run, findings):
    folders = [make_run(tmp_path / name, findings) for name in ("one", "two")]
    assert reco(*folders, "--formats", "json,html").exit_code == 0
    assert len(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))) == 2
    assert not (folders[0] / "report.html").exists()


def test_mistakes_are_told_in_one_line(run_folder, tmp_path, monkeypatch):
    assert "holds no findings.json: give the folder of a `reco eval study`" in failed(tmp_path / "nowhere")
    assert "format pdf is not known: give some of html, md, json" in failed(run_folder, "--formats", "html,pdf")
    assert "format (none) is not known" in failed(run_folder, "--formats", ",")
    assert "is given twice" in failed(run_folder, run_folder / ".." / run_folder.name)
    (tmp_path / "file").write_text("")
    assert "cannot be made" in failed(run_folder, "--out", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'reco-plugin[report]'" in failed(run_folder)


def test_a_failed_report_leaves_no_part_of_a_file(run_folder):
    (run_folder / "findings.json").write_text("{}", encoding="utf-8")
    assert "Run the study again" in failed(run_folder)
    (run_folder / "findings.json").write_text("{", encoding="utf-8")
    assert "cannot be read: it is no JSON: EOF while parsing" in failed(run_folder)
    assert {path.name for path in run_folder.iterdir()} == {"findings.json", "pictures"}
