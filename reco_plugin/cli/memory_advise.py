"""``reco memory advise``: which things of a list search will fail for, how sure that is, and what to add next."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, need
from ..files import whole_file
from ..values import counted
from .shared import Given, JsonOption, OpenOptions, check_place, on_one_line, reco_to_read, say, take_flags, takes

if TYPE_CHECKING:
    from ..advise import MemoryAdvice, ThingAdvice, WantedList

SHOWN = 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would compute: a ``'`` before it makes it text, see OWASP's page on CSV injection."""
_NAME, _WHY = 28, 72
_COLUMNS = (
    "thing", "fails", "sure_low", "sure_high", "pairs", "place", "presence", "near", "nearest", "reliability",
    "doubtful", "look_alikes", "add", "gain", "why",
)  # fmt: skip


@takes(OpenOptions)
def advise_command(
    *,
    things: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Things that should be found: a .txt of names, one a line; a .csv, .tsv or .jsonl with the column "
            "text, and image and id where there are pictures to add ('shop.csv?text=title&image=photo&id=sku'); or any "
            "source of pairs, see docs/sources.md.",
        ),
    ],
    group: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field of the payload, in the list and in the memory, that names a thing, as in product.",
            show_default="rows and pairs of the same words are a thing",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all things to this .csv, one a line.")
    ] = None,
    order: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the ids of all rows to add, those that gain most first."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with pictures (extra `report`).")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Things that are printed.")] = SHOWN,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Say which things of a list search will fail for, how sure that is, and what to add next to gain most.

    Each thing asks by its words in an index of the pictures of the list and the memory. The chance that people who ask
    for it in other words do not find it first is learned from the memory's own pairs, hidden from it, so no labels are
    needed. First in the list is what gains most: what fails now and is likely to be found once the memory has pairs of
    it. Nothing is written to the memory. More: docs/advise.md
    """
    from ..advise import advise, read_things
    from ..progress import progress_bar

    for path in (out, order, html):
        check_place(path)
    if html is not None:
        need("jinja2", "--html", "report")
    asked, wanted = take_flags(OpenOptions, given), read_things(things)
    with (
        reco_to_read(asked.model, asked.existing, on_memory_failure="fail") as reco,
        progress_bar(total=None, desc="advise", unit="query") as bar,
    ):
        found = advise(reco, wanted, group=group, progress=bar.update)
    for path, write in ((out, _write_csv), (order, _write_order)):
        if path is not None:
            write(found, path)
    if html is not None:
        _write_page(found, wanted, html)
    say(_told(found), "\n".join(map(on_one_line, _lines(found, top))), as_json)


def _told(found: MemoryAdvice) -> dict[str, Any]:
    return {
        "things": [one.to_dict() for one in found.things],
        "order": list(found.order),
        "failing": found.failing,
        "pairs": found.pairs,
        "mended": found.mended,
        "forecast": [
            {"pictured": one.pictured, "auc": one.auc if one.auc == one.auc else None, "calibration_error": one.error,
             "questions": len(one.failed), "failed": float(one.failed.mean())}
            for one in found.forecasts
        ],
        "rejected": [{"where": row.where, "reason": row.reason, "id": row.id} for row in found.rejected],
    }  # fmt: skip


def _lines(found: MemoryAdvice, top: int) -> Iterator[str]:
    yield from found.summary()
    yield ""
    yield f"{'thing':<{_NAME}}  fails    sure        pairs  place  add"
    for one in found.things[:top]:
        yield _line(one)
        if one.why:
            yield f"  {shorten('; '.join(one.why), 2 * _WHY, placeholder=' …')}"
    if (left := len(found.things) - top) > 0:
        yield f"… and {left:,} more: --top {len(found.things)}, --out FILE or --json shows all"
    if found.rejected:
        yield f"{counted(len(found.rejected), 'row')} could not be used as they are, the first: {found.rejected[0]}"


def _line(one: ThingAdvice) -> str:
    name = shorten(one.name, _NAME, placeholder=" …")
    fails = "–" if one.fails is None else f"{100 * one.fails:.0f} %"
    sure = "" if one.sure is None else f"[{100 * one.sure[0]:.0f}, {100 * one.sure[1]:.0f}]"
    place = "–" if one.place is None else str(one.place)
    add = ", ".join(one.add[:2]) + (" …" if len(one.add) > 2 else "")
    return f"{name:<{_NAME}}  {fails:<7}  {sure:<10}  {one.pairs:>5}  {place:>5}  {add}".rstrip()


def _write_csv(found: MemoryAdvice, path: Path) -> None:
    def cells(one: ThingAdvice) -> dict[str, Any]:
        told = one.to_dict()
        low, high = told.pop("sure") or ("", "")
        alike = [f"{each['thing']}{' (before it)' if each['ahead'] else ''}" for each in told.pop("look_alikes")]
        joined = {name: "; ".join(told[name]) for name in ("doubtful", "add")}  # an id may be a file's name with blanks
        row = {**told, **joined, "sure_low": low, "sure_high": high, "look_alikes": "; ".join(alike),
               "why": "; ".join(told["why"])}  # fmt: skip
        return {name: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
                for name, cell in row.items()}  # fmt: skip

    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(map(cells, found.things))


def _write_order(found: MemoryAdvice, path: Path) -> None:
    if any("\n" in id_ for id_ in found.order):
        raise DataError(f"{path}: an id holds a line break, so a list of ids cannot be written; --json has them")
    with whole_file(path) as part:
        part.write_text("".join(f"{id_}\n" for id_ in found.order), encoding="utf-8")


def _write_page(found: MemoryAdvice, wanted: WantedList, path: Path) -> None:
    from ..advise.page import write_page

    write_page(found, wanted, path, shlex.join(["reco", *sys.argv[1:]]))
