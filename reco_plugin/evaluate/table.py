"""Plain text tables, and the format of numbers in them."""

from __future__ import annotations

from collections.abc import Sequence

from .intervals import Interval


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, all others to the right.

    >>> print(table(["variant", "top-1"], [["frozen", "62.3"], ["both", "63.0"]]))
    variant  top-1
    -------  -----
    frozen    62.3
    both      63.0
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])
        for first, *others in lines
    )


def percent(share: float) -> str:
    """Format a share in per cent, as in ``62.3``."""
    return f"{100 * share:.1f}"


def gain(interval: Interval) -> str:
    """Format a difference in points with its bounds, as in ``+1.1 [+0.2, +2.0]``."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
