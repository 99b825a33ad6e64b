"""``python -m benchmarks.engines.losses``: 10,000 objects into a real Weaviate, whose module asks the service: losses.

Weaviate sends one object a request, as many at once as twice its processors for each batch, and tries none twice. It is
told that there are 64 of them, so 128 requests come at once, and of four batches 512; the service has its defaults.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.imports import one_service
from benchmarks.page import machine, table, write_blocks
from reco_plugin.quickstart.dataset import load

from . import weaviate
from .opensearch import ROOT, NotHere

PROCESSORS = 64
_CLASS = ROOT / "examples" / "configs" / "weaviate" / "class-voyageai.json"


def drawn(count: int) -> list[dict[str, str]]:
    """Objects with a title and a drawing, as base64."""
    data, made = load(), list[dict[str, str]]()
    for number in range(count):
        row = number % len(data.images)
        buffer = io.BytesIO()
        Image.fromarray(data.images[row]).save(buffer, "PNG")
        title = f"{number}: {data.items[row].caption}"
        made.append({"title": title, "image": base64.b64encode(buffer.getvalue()).decode()})
    return made


def imported(objects: Sequence[Mapping[str, str]], batches: int, size: int = 1000) -> tuple[int, Counter[str], float]:
    """Objects that are there with a vector, what Weaviate said of the others, and seconds.

    Args:
        objects: to be imported by the official client.
        batches: that are sent at once.
        size: of a batch.

    Raises:
        NotHere: Weaviate was not built.
    """
    from weaviate import connect_to_custom

    with one_service() as service, weaviate.started(service=service.url, processors=PROCESSORS) as (url, grpc):
        where = ("127.0.0.1", int(url.rpartition(":")[2]), False, "127.0.0.1", grpc, False)
        with closing(connect_to_custom(*where, skip_init_checks=True)) as client:
            described = _CLASS.read_text("utf-8").replace("http://reco:8080", service.url)
            products = client.collections.create_from_dict(json.loads(described))
            began = time.perf_counter()
            with products.batch.fixed_size(size, concurrent_requests=batches) as batch:
                for one in objects:
                    batch.add_object(dict(one))
            took = time.perf_counter() - began
            said = Counter(one.message[:80] for one in products.batch.failed_objects)
            there = sum(bool(one.vector) for one in products.iterator(include_vector=True, return_properties=[]))
    return there, said, took


def main() -> int:
    """Import, print, write the block of the page; 1 where something was lost."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--objects", type=int, default=10_000)
    words.add_argument("--page", type=Path, help="such as docs/measurements/imports.md")
    given = words.parse_args()
    objects, rows, lost = drawn(given.objects), list[list[Any]](), 0
    for batches in (1, 4):
        try:
            there, said, took = imported(objects, batches)
        except NotHere as reason:
            print(f"not here: {reason}")
            return 0
        lost += len(objects) - there
        at_once = f"{2 * PROCESSORS * batches}"
        why = ", ".join(f"{message}: {count:,}" for message, count in said.most_common(3))
        rows.append(
            [f"{batches} of 1,000", at_once, f"{len(objects):,}", f"{len(objects) - there:,}", f"{took:.0f} s", why]
        )
    shown = table(["batches at once", "requests at once", "objects", "lost", "took", "what it said"], rows, left=1)
    text = (
        f"`{' '.join(['python -m benchmarks.engines.losses', *sys.argv[1:]])}`, Weaviate {weaviate.VERSION}\n\n{shown}"
    )
    text += f"\n\nMachine: {machine()}.\n"
    print(text)
    if given.page:
        write_blocks(given.page, {"weaviate": text})
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
