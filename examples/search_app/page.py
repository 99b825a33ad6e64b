"""The same side by side: one self-contained file with pictures, to be opened in a browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reco_plugin.errors import need
from reco_plugin.files import whole_file
from reco_plugin.quickstart.dataset import EMOJI_SOURCES, QUERY_STYLES

from .catalogue import Product
from .measure import NOT_FOUND, Answer, K, Recall

_SHOWN = 6  # results per side


def write_page(
    path: Path, products: Sequence[Product], found: dict[str, Recall], answers: Sequence[Answer], digest: str
) -> None:
    """Write the page.

    Args:
        path: of the file.
        products: whose pictures are shown.
        found: figures by group of queries.
        answers: queries to show.
        digest: of the index, the same before and after.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    jinja2 = need("jinja2", "the page", "demo")
    shown = {hit.id for answer in answers for hit in [*answer.before[:_SHOWN], *answer.after[:_SHOWN]]}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("page.html").render(
        found=found,
        answers=answers,
        pictures={product.id: _png(product.image) for product in products if product.id in shown},
        products=len(products),
        digest=digest,
        k=K,
        not_found=NOT_FOUND,
        shown=_SHOWN,
        sources=[source for source in EMOJI_SOURCES if source.name in QUERY_STYLES],
    )
    with whole_file(path) as part:
        part.write_text(html, encoding="utf-8")


def _png(image: Image.Image) -> str:
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()
