"""Read the commands of an engine's section of ``docs/engines.md``, and run them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PART = re.compile(r"^###? (?P<title>[^\n]*)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class ClaimFailed(Exception):
    """A command of the page fails, or does not do what the page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    section: str  # its heading, of the second or third level
    language: str
    text: str


@dataclass
class Page:
    """An engine's section of the page, with the addresses of this machine.

    Attributes:
        engine: heading of the section, which has the parts ``Search ENGINE`` and ``Fill ENGINE``.
        replaced: text of the page -> text for this machine.
        names: variables of the Python blocks.
        folder: working directory of the blocks.
    """

    path: Path
    engine: str
    replaced: Mapping[str, str]
    names: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def blocks(self, section: str) -> list[Block]:
        """The blocks of a section; raises ClaimFailed if it has none."""
        found = [block for block in read_blocks(self.written(self.path.read_text("utf-8"))) if block.section == section]
        if not found:
            raise ClaimFailed(f"{self.path} has no section {section!r} with something to run")
        return found

    def written(self, text: str) -> str:
        """A text of the page or of a file, for this machine."""
        for written, here in self.replaced.items():
            text = text.replace(written, here)
        return text

    def address(self) -> str:
        """The address of the index, the section's first block."""
        return self.blocks(self.engine)[0].text.strip()

    def function(self) -> str:
        """The block with the function ``search`` of an engine without an address; raises ClaimFailed without one."""
        for block in self.blocks(f"Search {self.engine}"):
            if block.language == "python" and "def search(" in block.text:
                return block.text
        raise ClaimFailed(f"{self.path} has no function search for {self.engine}")

    def run_both(self) -> None:
        """Fill an index by the Python blocks, and search it.

        Raises:
            ClaimFailed: a block fails, or the query does not find ten hits.
        """
        for section in (f"Fill {self.engine}", "Every engine", f"Search {self.engine}"):
            self.run_python(section)
            if hasattr(client := self.names.pop("client", None), "close"):
                client.close()  # it locks its files
        if (found := len(self.names.get("hits", ()))) != 10:
            raise ClaimFailed(f"{self.path}, {self.engine}: its query found {found} hits, not 10")

    def run_python(self, section: str) -> None:
        """Run the Python blocks of a section; raises ClaimFailed if one fails."""
        for block in self.blocks(section):
            if block.language == "python":
                try:
                    exec(compile(block.text, str(self.path), "exec"), self.names)
                except Exception as error:
                    raise ClaimFailed(f"{self.path}, {section!r}: {type(error).__name__}: {error}") from error

    def run_bash(self, section: str) -> str:
        """Run the shell blocks of a section as one script; returns its output, and raises ClaimFailed if it fails."""
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
