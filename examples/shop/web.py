"""The search page, and the two calls that it makes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from examples.search_app.queries import Source
from reco_plugin.engines import Engine, IndexHit, Question
from reco_plugin.errors import EngineUnavailable, RecoError

PAGE = Path(__file__).with_name("page.html")
FILTERS = {
    "postgresql": "style = 'twemoji'",
    "lancedb": "style = 'twemoji'",
    "milvus": 'style == "twemoji"',
    "opensearch": '{"term": {"style": "twemoji"}}',
    "elasticsearch": '{"term": {"style": "twemoji"}}',
}
"""A filter on the demo's drawings in the language of each engine, as an example in the page."""


def make_app(index: Engine, source: Source, *, pictures: Path | None, scheme: str = "") -> FastAPI:
    """The page of an index.

    Args:
        index: that is searched.
        source: what embeds and refines the texts.
        pictures: folder of the pictures that the index names by paths; None: only URLs are shown.
        scheme: of the index's address, for an example of a filter.
    """
    app = FastAPI(title="shop", docs_url=None, redoc_url=None)

    @app.exception_handler(RecoError)
    def explain(_: Any, error: RecoError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503 if isinstance(error, EngineUnavailable) else 400)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/about")
    def about() -> dict[str, Any]:
        said = index.describe()
        return {**asdict(said), "filter": FILTERS.get(scheme, "")}

    @app.get("/search")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=1000)],
        where: str = "",
        k: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        plain = source.embed_texts([q], refine=False)
        refined = source.refine(plain, modality="text", target="image")
        sides = {"plain": plain[0], "refined": refined.vectors[0]}
        found = {side: index.search(Question(vector, q, k, where or None)) for side, vector in sides.items()}
        same = len({hit.id for hit in found["plain"]} & {hit.id for hit in found["refined"]})
        return {
            **{side: [shown(hit) for hit in hits] for side, hits in found.items()},
            "same": same,
            "moved": float(plain[0] @ refined.vectors[0]),  # cosine of both vectors
            "degraded": refined.degraded,
        }

    @app.get("/picture/{path:path}", response_class=FileResponse)
    def picture(path: str) -> FileResponse:
        folder = pictures.resolve() if pictures else None
        file = (folder / path).resolve() if folder else None
        if folder is None or file is None or not file.is_relative_to(folder) or not file.is_file():
            raise HTTPException(404, "no such picture")
        return FileResponse(file)

    return app


def shown(hit: IndexHit) -> dict[str, Any]:
    """A hit for the page, with where its picture is."""
    image = hit.image if isinstance(hit.image, str) else None
    remote = image is not None and image.startswith(("http://", "https://"))
    source = image if remote or image is None else f"picture/{image}"
    return {"id": hit.id, "score": hit.score, "text": hit.text, "picture": source}
