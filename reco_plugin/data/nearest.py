"""What an unknown name may have meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that look most like ``name``, the most alike first, whatever their case; [] when none does.

    >>> nearest("flower102", ["Flowers102", "Food101", "CIFAR10"])
    ['Flowers102']
    """
    folded = {item.casefold(): item for item in known}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, n=most)]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: what is nearest to it, or else the first few there are.

    >>> did_you_mean("wern", ["owl", "wren"]), did_you_mean("x", ["owl", "wren"])
    ("did you mean 'wren'?", "choose from 'owl', 'wren'")
    """
    if close := nearest(name, known):
        return f"did you mean {' or '.join(map(repr, close))}?"
    some = [repr(item) for item, _ in zip(known, range(5), strict=False)]
    return f"choose from {', '.join(some)}" + (f" and {len(known) - 5:,} more" if len(known) > 5 else "")
