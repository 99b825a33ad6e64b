"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table whose first columns are aligned to the left, the others to the right.

    >>> print(table(["set", "R@1"], [["emoji", "53.0"]]))
    | set | R@1 |
    |---|--:|
    | emoji | 53.0 |
    """
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * left + "--:|" * (len(head) - left), *lines[1:]])
