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
"""For a minute on two cores that are shared: one collector's thread, and code that is compiled once, quickly, which
halves the CPU of a start."""
FETCH_S = 300
"""For each fetch; a registry that stalls must not stop a whole run."""
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>reco</groupId><artifactId>layout</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


class NotHere(Exception):
    """This machine cannot run the engine; the message says why."""


def need(*programs: str) -> None:
    """Check that programs are there.

    Raises:
        NotHere: one is not.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise NotHere(f"there is no {program} here")


def laid_out(home: Path, fill: Callable[[Path, Path], object], *programs: str) -> Path:
    """The folder of an engine, whole or not at all: what is there already, else what is made now.

    Args:
        home: the folder.
        fill: takes a folder to work in, and one in it that it makes and that becomes the engine's.
        programs: that must be there.

    Raises:
        NotHere: a program is not, or something cannot be fetched.
    """
    need(*programs)
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as work:
            fill(Path(work), Path(work) / "home")
            (Path(work) / "home").rename(home)
    return home


def fetch(name: str, command: Sequence[str], what: Sequence[str]) -> None:
    """Run a command that fetches something, by a program of this name.

    Raises:
        NotHere: it fails, or takes too long.
    """
    named = f"{name} cannot fetch {', '.join(what)}"
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{named} within {FETCH_S} s") from None
    if ran.returncode:
        said = ran.stdout[-300:] + ran.stderr.strip()[-300:]
        raise NotHere(f"{named}: {next((line for line in ran.stdout.splitlines() if 'ERROR' in line), said)}")


def fetch_artifacts(work: Path, folder: Path, artifacts: Sequence[str]) -> set[str]:
    """Put artifacts (``group:name:version``) into a folder; with those they need."""
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
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"reco-{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def running(
    name: str, command: Sequence[str], folder: Path, answers: Callable[[], object], wait_s: float, **how: Any
) -> AbstractContextManager[int]:
    """:func:`benchmarks.processes.running` in a folder, with its log; killed afterwards, since an end takes seconds.

    Raises:
        NotHere: it does not answer, with the end of its log.
    """
    return processes.running(name, command, folder / "log", answers, wait_s, fails=NotHere, cwd=folder, **how)


def keep(server: AbstractContextManager[T], told: Callable[[T], str], doc: str | None) -> None:
    """Run a server until it is interrupted, and say where it is; ``--help`` says what its module does."""
    argparse.ArgumentParser(description=doc).parse_args()
    try:
        with server as where:
            print(told(where), flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        pass
    except NotHere as reason:
        sys.exit(str(reason))
