"""Parts of a source that misbehave on purpose; a module of its own, so that the workers of a cluster can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reco_plugin import Pair
from reco_plugin.sources.rows import Rejected


class Deadly(str):
    """A text that kills each encoding worker that unpacks it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (str(self),)


def _unpacked(text: str) -> Deadly:
    if b"EncodeChunks" in Path("/proc/self/cmdline").read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
    return Deadly(text)


@dataclass(frozen=True)
class Drawings:
    """Rows ``begin`` to ``end`` of a folder of drawings, in the order of names.

    Attributes:
        folder: images; the name without suffix is id and caption.
        waits_for: read only once this file is there.
        dies: kill the reading process half way: never, the first time, always; or always the encoding one (encoding).
    """

    folder: Path
    begin: int
    end: int
    waits_for: Path | None = None
    dies: str = "never"

    @property
    def name(self) -> str:
        """Of the folder and the rows."""
        return f"{self.folder.name}[{self.begin}:{self.end}]"

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows; every seventh has no caption column."""
        self._wait()
        for number, image in enumerate(sorted(self.folder.iterdir())[self.begin : self.end], self.begin):
            if number == (self.begin + self.end) // 2:
                self._die()
            if number == (self.begin + self.end) // 2 and self.dies == "encoding":
                yield Rejected(Deadly(f"{self.name}, number {number}"), "it is deadly", image.stem)
            elif number % 7 == 3:
                yield Rejected(f"{self.name}, number {number}", "it has no caption", image.stem)
            else:
                yield Pair(image.stem, image, image.stem.replace("-", " "), {"number": number})

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while self.waits_for is not None and not self.waits_for.exists() and time.monotonic() < end:
            time.sleep(0.02)

    def _die(self) -> None:
        mark = self.folder.with_name(f"died-{self.begin}")
        if self.dies == "always" or (self.dies == "the first time" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
