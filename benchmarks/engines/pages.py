"""The commands of an engine's section of ``docs/engines.md``, read out of it and run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PART = re.compile(r"^###? (?P<title>[^\n]*)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class ClaimFailed(Exception):
    """What a page says is not so; the message says what."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    section: str  # its heading, of the second or third level
    language: str
    text: str


@dataclass
class Page:
    """An engine's section of the page, with the addresses of this machine in the place of its own.

    It has an address or a function, and the parts ``Search ENGINE`` and ``Fill ENGINE``.
    """

    path: Path
    engine: str  # its heading
    replaced: Mapping[str, str]  # what the page writes -> what is meant here
    names: dict[str, Any] = field(default_factory=dict)  # what Python's blocks know, from one to the next
    folder: Path = Path()  # where blocks run

    def blocks(self, section: str) -> list[Block]:
        """The blocks of a section.

        Raises:
            ClaimFailed: it has none.
        """
        found = [block for block in read_blocks(self.written(self.path.read_text("utf-8"))) if block.section == section]
        if not found:
            raise ClaimFailed(f"{self.path} has no section {section!r} with something to run")
        return found

    def written(self, text: str) -> str:
        """A text of the page or of a file, with what is meant here."""
        for said, meant in self.replaced.items():
            text = text.replace(said, meant)
        return text

    def address(self) -> str:
        """The address of the index, the section's first block."""
        return self.blocks(self.engine)[0].text.strip()

    def function(self) -> str:
        """The ``shop.py`` of an engine without an address: what its function ``search`` is in.

        Raises:
            ClaimFailed: the page has none.
        """
        for block in self.blocks(f"Search {self.engine}"):
            if block.language == "python" and "def search(" in block.text:
                return block.text
        raise ClaimFailed(f"{self.path} has no function search for {self.engine}")

    def run_both(self) -> None:
        """Run what Python does to fill an index, and then to search it; its clients are closed, as files lock.

        Raises:
            ClaimFailed: something fails, or the query does not find ten.
        """
        for section in (f"Fill {self.engine}", "Every engine", f"Search {self.engine}"):
            self.run_python(section)
            if hasattr(client := self.names.pop("client", None), "close"):
                client.close()
        if (found := len(self.names.get("hits", ()))) != 10:
            raise ClaimFailed(f"{self.path}, {self.engine}: its query found {found} hits, not 10")

    def run_python(self, section: str) -> None:
        """Run Python's blocks of a section, one after the other.

        Raises:
            ClaimFailed: one fails.
        """
        for block in self.blocks(section):
            if block.language == "python":
                try:
                    exec(compile(block.text, str(self.path), "exec"), self.names)
                except Exception as error:
                    raise ClaimFailed(f"{self.path}, {section!r}: {type(error).__name__}: {error}") from error

    def run_bash(self, section: str) -> str:
        """Run the shell's blocks of a section as one script, which ends at the first failure; what it printed.

        Raises:
            ClaimFailed: it failed.
        """
        script = "\n".join(block.text for block in self.blocks(section) if block.language == "bash")
        command = ["bash", "-euo", "pipefail", "-c", script]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=600)
        if ran.returncode:
            raise ClaimFailed(f"{self.path}, {section!r}: {ran.stdout[-1500:]}\n{ran.stderr[-1500:]}")
        return ran.stdout


def read_blocks(text: str) -> list[Block]:
    r"""All fenced blocks of a page, in order.

    >>> read_blocks("## A\n```sql\nSELECT 1\n```\n")
    [Block(section='A', language='sql', text='SELECT 1\n')]
    """
    section, found = "", []
    for part in _PART.finditer(text):
        if part["title"] is not None:
            section = part["title"]
        else:
            found.append(Block(section, part["language"], part["text"]))
    return found
