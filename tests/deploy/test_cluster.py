"""`make k8s`: what it asks of kubectl and Helm, which programs of the test stand for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import kubernetes

from .conftest import SETS

STANDS_FOR = """#!{python}
import json, sys
words, text = sys.argv[1:], "" if sys.stdin.isatty() or "-" not in sys.argv else sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, words, len(text)]) + "\\n")
if any(word in words for word in {fails!r}):
    sys.exit("error: " + words[0] + " is refused here")
if words[0] == "template":
    print("apiVersion: v1")
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run it beside such programs; returns the exit status and the calls."""

    def run(*words: str, fails: tuple[str, ...] = ()) -> tuple[int, list[tuple[str, list[str], int]]]:
        log = tmp_path / "log"
        for name in ("kubectl", "helm"):
            program = tmp_path / name
            program.write_text(STANDS_FOR.format(python=sys.executable, log=str(log), name=name, fails=fails), "utf-8")
            program.chmod(0o755)
            monkeypatch.setenv(name.upper(), str(program))
        monkeypatch.setattr(kubernetes, "read_sets", lambda: {name: SETS[name] for name in ("defaults", "small")})
        status = kubernetes.main(list(words))
        return status, [tuple(json.loads(line)) for line in log.read_text("utf-8").splitlines()]

    return run


def test_each_set_is_sent_and_the_namespace_goes_again(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked()
    assert status == 0
    assert capsys.readouterr().out.splitlines() == ["defaults: taken", "small: taken", "nothing was refused"]
    verbs = [words[0] for _, words, _ in calls]
    assert verbs == ["get", "create", "label", "template", "apply", "template", "apply", "delete"]
    for _, words, length in calls:
        if words[0] == "apply":
            assert {"--server-side", "--dry-run=server"} <= set(words) and length > 0


def test_what_is_refused_is_named(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked("--install", fails=("apply", "install"))
    assert status == 1
    assert "refused: defaults, small, install" in capsys.readouterr().out
    assert [words[0] for _, words, _ in calls][-3:] == ["install", "uninstall", "delete"]


def test_without_a_cluster_it_says_what_it_skipped(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked(fails=("/version",))
    assert status == 0 and len(calls) == 1
    assert "skipped: kubectl reaches no cluster (error: get is refused here)" in capsys.readouterr().out


def test_without_the_tools_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("KUBECTL", "HELM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    assert kubernetes.main([]) == 0
    assert capsys.readouterr().out == "skipped: kubectl is not here\n"
