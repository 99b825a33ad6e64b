"""What commands that measure the method share: arguments, sets, memories, what is kept between runs, pages.

A command is a page of docs/measurements. It measures sets (drawings under the shipped encoder, or stored vectors of a
real one, which are not part of this repository), and puts tables and charts into the page's blocks, or prints them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.demo.tasks import FrozenEncoder
from reco_plugin.encode import Encoder
from reco_plugin.evaluate.findings import Section
from reco_plugin.evaluate.study.memories import ram_memory
from reco_plugin.refine import VectorMemory
from reco_plugin.report import write_charts
from reco_plugin.types import Fingerprint, Records, Vectors

from .page import folder_of, write_blocks
from .sets import LOADERS, emoji
from .sets.package_set import PackageSet
from .sets.vectors import VectorSet, vectors
from .subject import K, Subject

DRAWN: dict[str, Callable[[Path], PackageSet]] = {"emoji": emoji.load, **LOADERS}
"""Sets of drawings, by name."""
STORED = Fingerprint("stored vectors", "stored", 512)
"""Of vectors that this repository did not make."""


def shipped_encoder() -> tuple[FrozenEncoder, Fingerprint]:
    """The shipped mini CLIP and its fingerprint."""
    artifact = Artifact.load("triton_models")
    return Encoder(artifact, load_settings()), artifact.manifest.fingerprint


def drawn(name: str, cache: Path) -> tuple[VectorSet, Fingerprint]:
    """A set of drawings under the shipped encoder, encoded once for each cache, and the encoder's fingerprint."""
    encodes, fingerprint = shipped_encoder()
    return vectors(DRAWN[name](cache / "quickstart"), encodes, fingerprint.digest, cache / "sets"), fingerprint


def subject_of(name: str, cache: Path) -> Subject:
    """The same, with its memories and tasks."""
    return Subject(*drawn(name, cache))


def pairs_of(image: Vectors, text: Vectors) -> Records:
    """Pairs (N, D) without payload, under their row's number."""
    return Records([f"{row:06d}" for row in range(len(image))], image, text, [{}] * len(image))


def memory_of(image: Vectors, text: Vectors, fingerprint: Fingerprint = STORED) -> tuple[VectorMemory, Records]:
    """A memory of pairs (N, D), learned from them, and the pairs."""
    records = pairs_of(image, text)
    return ram_memory(records, fingerprint).at(K), records


def spread(values: Sequence[float] | npt.NDArray[Any], digits: int = 1, sign: str = "") -> str:
    """Mean ± standard deviation; a dash of nothing.

    >>> spread([1.0, 2.0], sign="+"), spread([])
    ('+1.5 ± 0.5', '–')
    """
    return f"{np.mean(values):{sign}.{digits}f} ± {np.std(values):.{digits}f}" if len(values) else "–"


class Kept:
    """What was measured before, in a file of JSON lines: a run that was stopped goes on where it was.

    A last line that was not written to its end, because the run was killed, is cut off.

    Nothing notices that the code has changed: remove the file to measure anew.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file, if there is one; None: keep nothing."""
        self._path = path
        *lines, cut = path.read_bytes().split(b"\n") if path is not None and path.is_file() else [b""]
        if path is not None and cut:
            os.truncate(path, path.stat().st_size - len(cut))
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is known under a key, else what is made now: JSON values."""
        if key not in self._known:
            self._known[key] = made = make()
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, made]) + "\n")
        return self._known[key]


def parser_of(
    doc: str | None,
    page: str,
    *,
    data: str = "",
    data_needed: bool = False,
    sets: Iterable[str] = (),
    cached: bool = True,
    docs_needed: bool = False,
) -> argparse.ArgumentParser:
    """The arguments that commands share.

    Args:
        doc: the module's docstring.
        page: name of the page.
        data: what the folder of stored vectors holds, for people; empty: there is no such argument.
        data_needed: whether the command needs it.
        sets: names of sets that can be chosen.
        cached: whether drawings and their vectors are kept.
        docs_needed: whether it writes its page always.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        parser.add_argument("--data", type=Path, required=data_needed, help=data)
    if names := list(sets):
        parser.add_argument("--sets", nargs="*", default=names, choices=names)
    if cached:
        parser.add_argument("--cache", type=Path, default=Path(".cache"), help="packages, drawings, vectors")
    otherwise = "" if docs_needed else "; else the tables are printed"
    parser.add_argument(
        "--docs", type=folder_of(f"{page}.md"), required=docs_needed, help=f"folder of {page}.md{otherwise}"
    )
    return parser


def publish(
    docs: Path | None, page: str, blocks: Mapping[str, str], charts: Iterable[tuple[str, Section]] = ()
) -> None:
    """Put blocks into a page of a folder, and charts by prefix into the folder of its name; or print the blocks."""
    if docs is None:
        print("\n\n".join(blocks.values()))
        return
    for prefix, section in charts:
        (docs / page).mkdir(parents=True, exist_ok=True)
        write_charts(section, docs / page, prefix)
    write_blocks(docs / f"{page}.md", blocks)
