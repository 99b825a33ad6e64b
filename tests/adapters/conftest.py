"""Sets as webdataset shards in clip_benchmark's layout, each beside a memory that knows something of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from shapes import COLOURS, SHAPES, draw

from reco_plugin import Pair, Reco

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ("{c}", "a drawing of {c}")
ENTITIES = 32  # of each split: 300 pairs in the memory, as with the shapes


@dataclass(frozen=True)
class Query:
    """An image with its class and its captions."""

    image: Image.Image
    label: int
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """What is evaluated.

    Attributes:
        classes: their names.
        queries: images to be classified.
        pairs: what the memory holds.
    """

    classes: list[str]
    queries: list[Query]
    pairs: list[Pair]

    @property
    def one_each(self) -> list[Query]:
        """The first query of each class: a retrieval set in which no caption comes twice."""
        return list({query.label: query for query in reversed(self.queries)}.values())[::-1]


@pytest.fixture(scope="session")
def stocked(drawings: list[Pair]) -> Iterator[Reco]:
    """The shipped model with the drawings in its memory, for tests that add nothing.

    It does without the fixture ``model``, which LangChain's suites have one of their own of.
    """
    with Reco.open(ROOT / "triton_models", memory=":memory:") as reco:
        reco.memory.add(drawings)
        yield reco


@pytest.fixture(scope="session")
def ungated(drawings: list[Pair]) -> Iterator[Reco]:
    """The same without the gate, for which scores have no way back to plain ones."""
    with Reco.open(ROOT / "triton_models", memory=":memory:", gate=False) as reco:
        reco.memory.add(drawings[:12])
        yield reco


@pytest.fixture(scope="session")
def on_disk(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that open the shipped model and a memory in a folder, with the drawings in it."""
    settings = {"model": str(ROOT / "triton_models"), "memory": str(tmp_path_factory.mktemp("stocked") / "memory")}
    with Reco.open(**settings) as reco:
        reco.memory.add(drawings)
    return settings


@pytest.fixture(scope="session")
def files(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first four drawings as PNG files."""
    folder = tmp_path_factory.mktemp("drawings")
    for pair in drawings[:4]:
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
    return [folder / f"{pair.id}.png" for pair in drawings[:4]]


@pytest.fixture(
    scope="session", params=["drawn", pytest.param("quickstart", marks=pytest.mark.xdist_group("quickstart"))]
)
def bench(
    request: pytest.FixtureRequest, model: Path, drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with ``model``, ``memory`` and the sets ``labelled`` and ``captioned``.

    Queries are small drawn shapes, with 300 of other sizes in the memory, enough to fit a gate; or drawings of entities
    in a style that no memory holds.
    """
    bench = _shapes(drawings) if request.param == "drawn" else _quickstart()
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "model").symlink_to(model)
    with Reco.open(model, memory=folder / "memory") as reco:
        reco.memory.add(bench.pairs)
    for name, suffix, queries in (("labelled", "cls", bench.queries), ("captioned", "txt", bench.one_each)):
        (folder / name / "test").mkdir(parents=True)
        half = (len(queries) + 1) // 2
        for number, part in enumerate((queries[:half], queries[half:])):
            _write_shard(folder / name / "test" / f"{number}.tar", number * half, part, suffix)
        (folder / name / "test" / "nshards.txt").write_text("2")
    (folder / "labelled" / "classnames.txt").write_text("\n".join(bench.classes), encoding="utf-8")
    (folder / "labelled" / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    (folder / "captioned" / "dataset_type.txt").write_text("retrieval")
    return folder


def _shapes(drawings: Sequence[Pair]) -> Bench:
    small = drawings[: len(drawings) // 2]
    names = [f"{pair.payload['colour']} {pair.payload['shape']}" for pair in small]
    queries = [Query(p.image, n, (str(p.text), names[n])) for n, p in enumerate(small)]  # type: ignore[arg-type]
    asked = {pair.payload["radius"] for pair in small}
    pairs = [
        Pair(f"{radius}-{colour}-{shape}", draw(colour, shape, radius), f"a {_size(radius)} {colour} {shape}")
        for radius in sorted({*range(5, 31)} - asked)
        for colour, shape in product(COLOURS, SHAPES)
    ]
    return Bench(names, queries, pairs)


def _size(radius: int) -> str:
    return ("tiny", "middling", "large", "huge")[radius // 8]


def _quickstart() -> Bench:
    from some_drawings import all_drawings

    from reco_plugin.quickstart.dataset import MEMORY_STYLES, QUERY_STYLES

    data = all_drawings()
    entities = [entity for split in ("unseen", "seen") for entity in data.labels([split])[:ENTITIES]]  # type: ignore
    number = {entity.key: n for n, entity in enumerate(entities)}
    queries, pairs = [], []
    for row, item in enumerate(data.items):
        if item.entity in number:
            image, n = Image.fromarray(data.images[row]), number[item.entity]
            if item.style in QUERY_STYLES:
                queries.append(Query(image, n, (entities[n].label, f"a drawing of {entities[n].label}")))
            elif item.style in MEMORY_STYLES:
                pairs.append(Pair(item.key, image, item.caption))
    return Bench([entity.label for entity in entities], queries, pairs)


def _write_shard(path: Path, first: int, queries: Sequence[Query], suffix: str) -> None:
    with tarfile.open(path, "w") as tar:
        for number, query in enumerate(queries, first):
            png = io.BytesIO()
            query.image.save(png, "png")
            text = str(query.label) if suffix == "cls" else "\n".join(query.captions)
            for ending, content in (("png", png.getvalue()), (suffix, text.encode())):
                member = tarfile.TarInfo(f"query{number:05}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
