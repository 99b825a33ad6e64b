"""What the starters of real engines share: a folder laid out once, artifacts of Maven, a process that answers."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .. import processes

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
HOMES = ROOT / ".cache" / "engines"
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""One garbage collector thread and only the quick compiler: half the CPU of a start."""
FETCH_S = 300
"""Timeout of one fetch."""
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>reco</groupId><artifactId>layout</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


class NotHere(Exception):
    """This machine cannot run the engine; the message says why."""


def need(*programs: str) -> None:
    """Raise NotHere if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise NotHere(f"there is no {program} here")


def laid_out(home: Path, fill: Callable[[Path, Path], object], *programs: str) -> Path:
    """Return the folder of an engine; make it if it is missing, completely or not at all.

    Args:
        home: the folder.
        fill: takes a folder to work in, and the folder in it that it has to make.
        programs: that are needed.

    Raises:
        NotHere: a program is missing, or something cannot be fetched.
    """
    need(*programs)
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as work:
            fill(Path(work), Path(work) / "home")
            (Path(work) / "home").rename(home)
    return home


def fetch(name: str, command: Sequence[str], what: Sequence[str]) -> None:
    """Run a command that fetches ``what``; raise NotHere if it fails or takes too long."""
    named = f"{name} cannot fetch {', '.join(what)}"
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{named} within {FETCH_S} s") from None
    if ran.returncode:
        output = ran.stdout[-300:] + ran.stderr.strip()[-300:]
        raise NotHere(f"{named}: {next((line for line in ran.stdout.splitlines() if 'ERROR' in line), output)}")


def fetch_artifacts(work: Path, folder: Path, artifacts: Sequence[str]) -> set[str]:
    """Fetch Maven artifacts (``group:name:version``) and their dependencies to a folder; returns their file names."""
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    pom = work / "pom.xml"
    pom.write_text(_POM.format(dependencies), encoding="utf-8")
    command = [
        *("mvn", "-B", "-q", "-C", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"),
        f"-DoutputDirectory={folder}",
    ]
    fetch("Maven", command, artifacts)
    return {path.name for path in folder.iterdir()}


@contextmanager
def folder_for(name: str) -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix=f"reco-{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def running(
    name: str, command: Sequence[str], folder: Path, answers: Callable[[], object], wait_s: float, **how: Any
) -> AbstractContextManager[int]:
    """Run :func:`benchmarks.processes.running` in a folder; raises NotHere with the log."""
    return processes.running(name, command, folder / "log", answers, wait_s, fails=NotHere, cwd=folder, **how)


def keep(server: AbstractContextManager[T], describe: Callable[[T], str], doc: str | None) -> None:
    """Run a server until it is interrupted, and print its address; ``doc`` is the text of ``--help``."""
    argparse.ArgumentParser(description=doc).parse_args()
    try:
        with server as where:
            print(describe(where), flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        pass
    except NotHere as reason:
        sys.exit(str(reason))
