"""``python -m examples.shop``: fill an index with the demo's drawings, and open the search page of an index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from examples.search_app.catalogue import read_catalogue
from examples.search_app.queries import Source
from reco_plugin import Reco
from reco_plugin.cli.commands import reports_errors
from reco_plugin.client import Client
from reco_plugin.engines import open_index, parse_address

from .fill import fill, shelve
from .web import make_app

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A search page on the index that you have.")
IndexOption = Annotated[
    str,
    typer.Option(
        help="address of the index, as in 'opensearch://localhost:9200/products?vector=clip&text=title&image=photo'; "
        "see docs/engines.md"
    ),
]
FolderOption = Annotated[Path, typer.Option(help="for the memory and the pictures of the demo")]
RecoOption = Annotated[str | None, typer.Option(help="URL of a `reco serve` to refine with; in process when left out")]
KeyOption = Annotated[str | None, typer.Option(envvar="SHOP_KEY", help="of that service; to fill: its admin key")]
MemoryOption = Annotated[
    str | None,
    typer.Option(help="when in process: a folder, or the URL of a Qdrant server", show_default="memory in the folder"),
]
ModelOption = Annotated[Path, typer.Option(help="model folder, when in process")]
MODEL = Path("triton_models")


@app.command("fill")
@reports_errors
def fill_command(
    index: IndexOption,
    folder: FolderOption = Path("demo/shop"),
    reco: RecoOption = None,
    api_key: KeyOption = None,
    memory: MemoryOption = None,
    model: ModelOption = MODEL,
) -> None:
    """Make an index of the demo's drawings anew, and fill the memory with other drawings of the same things."""
    put_demo(index, folder, reco, api_key, memory, model)
    typer.echo("Now: python -m examples.shop serve --index …, with vector=clip&text=title&image=photo&id=sku")


def put_demo(index: str, folder: Path, reco: str | None, api_key: str | None, memory: str | None, model: Path) -> None:
    """Put the demo's drawings into an index and their pictures into the folder, and fill the memory."""
    catalogue = read_catalogue()
    with open_source(None if memory else reco, api_key, model, memory or str(folder / "memory")) as source:
        images = [product.image for product in catalogue.products]
        shelf = shelve(catalogue.products, source.embed_images(images, refine=False), folder / "pictures")
        filled = fill(parse_address(index), shelf)
        if isinstance(source, Client):
            source.add_pairs(catalogue.memory)
        elif len(source.memory) < len(catalogue.memory):
            source.memory.add(catalogue.memory, progress=True)
    with closing(open_index(filled)) as opened:
        said = opened.describe()
    typer.echo(f"{said.documents:,} drawings in {said.name} of {said.engine}, {said.index}")
    typer.echo(f"{len(catalogue.memory):,} other drawings in the memory")


@app.command("serve")
@reports_errors
def serve_command(
    index: IndexOption,
    folder: FolderOption = Path("demo/shop"),
    reco: RecoOption = None,
    api_key: KeyOption = None,
    memory: MemoryOption = None,
    model: ModelOption = MODEL,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port of the page")] = 8000,
    first: Annotated[bool, typer.Option("--fill", help="make the index of the demo's drawings first")] = False,
) -> None:
    """Open the search page of an index, filled by this example or yours."""
    import uvicorn

    if first:
        put_demo(index, folder, reco, api_key, memory, model)
    address = parse_address(index)
    pictures = Path(address.images).expanduser() if address.images else folder / "pictures"
    with (
        open_source(reco, api_key, model, memory or str(folder / "memory")) as source,
        closing(open_index(address)) as opened,
    ):
        said = opened.describe()
        typer.echo(f"{said.documents:,} documents of {said.engine}; the page: http://{host}:{port}")
        page = make_app(opened, source, pictures=pictures, scheme=address.scheme)
        uvicorn.run(page, host=host, port=port, log_level="warning")


@contextmanager
def open_source(url: str | None, api_key: str | None, model: Path, memory: str) -> Iterator[Source]:
    """What embeds and refines: a service as it is, or a Reco with its memory."""
    if url is not None:
        with Client(url, api_key=api_key) as client:
            yield client
    else:
        with Reco.open(model, memory=memory) as opened:
            yield opened


if __name__ == "__main__":
    app()
