"""The three standard streams, where whoever started this process has closed one, as some that start daemons do."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Open ``/dev/null`` in the place of each that is closed.

    Python has None there, which nothing can be written to. And the next file or socket would take its number, to which
    libraries write what they complain of: into a file of a memory.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, so this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as it runs
