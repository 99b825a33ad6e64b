"""The runs of a report: findings with their folder, under distinct names."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..evaluate.findings import Case, Findings, Section

PICTURES = "pictures"
_TYPES = {".webp": "webp", ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str  # distinct in the report
    key: str  # distinct, of letters, digits and hyphens: for anchors and file names
    folder: Path  # that holds the pictures
    findings: Findings

    def picture(self, name: str | None) -> Path | None:
        """The file of a picture; None where there is none, or the file is missing.

        Raises:
            DataError: the name is no plain file name.
        """
        if name is None:
            return None
        if Path(name).name != name or Path(name).suffix.lower() not in _TYPES:
            raise DataError(
                f"{self.folder}: a picture is called {name!r}; a plain name of a {', '.join(_TYPES)} is needed"
            )
        path = self.folder / PICTURES / name
        return path if path.is_file() else None

    def picture_data(self, name: str | None) -> str | None:
        """A picture as a ``data:`` URL; None where there is none."""
        path = self.picture(name)
        if path is None:
            return None
        return f"data:image/{_TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    def is_pictured(self, case: Case) -> bool:
        """Whether the query of a case or one of its neighbours has a picture."""
        names = [case.picture, *(shown.picture for shown in (*case.neighbours, *case.prompt_neighbours))]
        return any(self.picture(name) for name in names)


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read run folders; data sets of one name are named with their folders.

    Raises:
        DataError: a folder holds no findings, two of its sections share a key, or it is given twice.
    """
    if again := [folder for folder, times in Counter(folder.resolve() for folder in folders).items() if times > 1]:
        raise DataError(f"{again[0]} is given twice")
    read = [Findings.read(folder) for folder in folders]
    times = Counter(findings.name for findings in read)
    runs: list[Run] = []
    for number, (folder, findings) in enumerate(zip(folders, read, strict=True), 1):
        keys = Counter(section_key(section) for section in findings.sections)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise DataError(
                f"{folder}: two sections have the key {twice[0]!r}; keys name files, so each may stand once"
            )
        name = findings.name if times[findings.name] == 1 else f"{findings.name} ({folder})"
        runs.append(Run(name, f"run-{number}", folder, findings))
    return tuple(runs)


def section_key(section: Section) -> str:
    """The key of a section in file names and anchors.

    >>> section_key(Section(key="Do no harm/../x", title="", about=""))
    'do-no-harm-x'
    """
    return re.sub(r"[^a-z0-9]+", "-", section.key.casefold()).strip("-") or "section"
