"""A real container of Vespa, of Maven Central, with a searcher of ours where content nodes would be.

``python -m benchmarks.engines.vespa DOCUMENTS.json`` fetches it (105 MB, once), starts it and waits until it is ended.

What is Vespa's own: HTTP, YQL, the tensors of queries, rank profiles' inputs, words, errors, and the form of answers.
What is not: ``Exact.java`` compares each document with the query, by the closeness of the schema, and answers as
``/document/v1`` does. Content nodes are no Java, and not on Maven. It takes a JDK of Java 17, and Maven.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..processes import ask, free_port
from .nodes import HOMES, JAVA, compiled, fetch_artifacts, folder_for, keep_on, laid_out, running

VERSION = "8.700.24"
HOME = HOMES / f"vespa-{VERSION}"
_SOURCE = Path(__file__).with_name("Exact.java")
_SERVICES = """<?xml version="1.0" encoding="utf-8" ?>
<services version="1.0">
  <container id="default" version="1.0">
    <search/>
    <document-api/>
  </container>
  <content id="products" version="1.0">
    <min-redundancy>1</min-redundancy>
    <documents><document type="product" mode="index"/></documents>
  </content>
</services>
"""
_STANDING_IN = {  # in services.xml, for what asks content nodes
    "<search/>": '<search><chain id="default" inherits="vespa"><searcher id="reco.Exact"/></chain></search>',
    "<document-api/>": (
        '<handler id="reco.Exact$Documents"><binding>http://*/document/v1/*</binding></handler>'
        '<http><server id="default" port="{port}"/></http>'
    ),
}
_SCHEMA = """schema product {{
    document product {{
        field sku type string {{ indexing: summary | attribute }}
        field title type string {{ indexing: summary | index }}
        field photo type string {{ indexing: summary | attribute }}
        field price type double {{ indexing: summary | attribute }}
        field clip type tensor<float>(x[{dimension}]) {{
            indexing: attribute | index
            attribute {{ distance-metric: {metric} }}
        }}
    }}
    rank-profile by_clip inherits default {{
        inputs {{ query(q) tensor<float>(x[{dimension}]) }}
        first-phase {{ expression: closeness(field, clip) }}
    }}
}}
"""


def install(home: Path = HOME) -> Path:
    """Fetch the container's jars, where that has not been done; returns their folder.

    Raises:
        NotHere: no Java or Maven, or an artifact cannot be fetched.
    """
    artifacts = [f"com.yahoo.vespa:application:{VERSION}"]
    return laid_out(home, lambda work, part: fetch_artifacts(work, part, artifacts), "java", "javac", "mvn")


@contextmanager
def started(
    documents: Sequence[Mapping[str, Any]],
    metric: str = "prenormalized-angular",
    *,
    services: str = _SERVICES,
    schema: str | None = None,
    wait_s: float = 180,
) -> Iterator[str]:
    """A container on a free port of this machine; its URL. Everything that it wrote is gone afterwards.

    Args:
        documents: of the schema ``product``: ``sku``, ``title``, ``photo``, ``price`` and ``clip``, where they have it;
            of another schema its fields, with ``sku``.
        metric: ``distance-metric`` of the schema.
        services: ``services.xml``; what asks content nodes in it is replaced.
        schema: ``product.sd``, where it is another one.
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it cannot be had, or does not start.
    """
    home = install()
    with folder_for("vespa") as folder:
        port = free_port()
        (folder / "app" / "schemas").mkdir(parents=True)
        for asked, ours in _STANDING_IN.items():
            services = services.replace(asked, ours.format(port=port))
        (folder / "app" / "services.xml").write_text(services, encoding="utf-8")
        if schema is None:
            dimension = next(len(one["clip"]) for one in documents if one.get("clip"))
            schema = _SCHEMA.format(dimension=dimension, metric=metric)
        (folder / "app" / "schemas" / "product.sd").write_text(schema, encoding="utf-8")
        kept = [{key: value for key, value in one.items() if value is not None} for one in documents]
        (folder / "documents.json").write_text(json.dumps(kept), encoding="utf-8")
        classes = compiled(_SOURCE, home, f"{home}/*")
        command = [
            *(*JAVA, "-Xmx512m", "-cp", f"{classes}:{home}/*", "reco.Exact"),
            *(f"{folder}/app", f"{folder}/documents.json", metric),
        ]
        environment = {"PATH": os.environ["PATH"], "VESPA_HOME": str(folder), "VESPA_SECRET_RECO_API_KEY": "any"}
        url = f"http://127.0.0.1:{port}"
        with running("Vespa", command, folder, lambda: ask(f"{url}/state/v1/version"), wait_s, env=environment):
            yield url


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("documents", type=Path, metavar="DOCUMENTS.json")
    given = words.parse_args()
    stored = json.loads(given.documents.read_text(encoding="utf-8"))
    keep_on(started(stored), lambda where: f"Vespa {VERSION}: {where}")
