"""Usual names of columns, to propose a whole source where a table has others than ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..values import nearest

_USUAL: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "sku", "product_id", "item_id", "article_id", "asin", "ean", "gtin", "uuid", "key"),
    "image": (
        "image", "photo", "picture", "img", "image_path", "image_file", "image_url", "photo_url", "img_url", "filename",
        "file_name", "filepath", "file", "path", "url",
    ),
    "text": ("text", "caption", "title", "name", "product_name", "product_title", "label", "description", "alt"),
    "label": ("label", "class", "category", "kind", "species", "product", "name", "title"),
}  # fmt: skip


def propose(source: str, columns: Sequence[str], wanted: Mapping[str, str]) -> str:
    """The source with options that name its columns; ``NAME`` stands where none has a usual name.

    Args:
        source: without options.
        columns: of the table.
        wanted: option -> the column that was looked for; an ``id`` may be missing.

    >>> propose("shop.csv", ["sku", "photo", "title"], {"id": "id", "image": "image", "text": "text"})
    'shop.csv?id=sku&image=photo&text=title'
    >>> propose("shop.csv", ["image", "titel"], {"id": "id", "image": "image", "text": "title"})
    'shop.csv?text=titel'
    """
    options: dict[str, str] = {}
    for option, name in wanted.items():
        column = name if name in columns else _guess(option, name, [c for c in columns if c not in options.values()])
        if column is None and (option != "id" or name != "id"):
            column = "NAME"
        if column not in (None, option):
            options[option] = str(column)
    return "?".join(filter(None, [source, "&".join(f"{option}={column}" for option, column in options.items())]))


def _guess(option: str, name: str, columns: Sequence[str]) -> str | None:
    """The column of a similar name, where one was given, else of a usual one."""
    if name != option and (close := nearest(name, columns, 1)):
        return close[0]
    folded = {column.strip().casefold().replace(" ", "_").replace("-", "_"): column for column in reversed(columns)}
    return next((folded[usual] for usual in _USUAL[option] if usual in folded), None)
