"""A real Solr, of Maven Central: its core, in the Jetty that its own tests start.

There is no distribution on Maven; ``python -m benchmarks.engines.solr`` fetches the core and ``solr-test-framework``,
which starts it by HTTP (85 MB, once), starts it and waits until it is ended. It takes a JDK of Java 17, and Maven.
Modules are not on Maven: ``llm``, by which Solr asks the service itself, is not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..processes import ask, free_port
from .nodes import HOMES, JAVA, compiled, fetch_artifacts, folder_for, keep, laid_out, running

VERSION = "9.10.1"
HOME = HOMES / f"solr-{VERSION}"
_SOURCE = Path(__file__).with_name("Solr.java")
_CONFIG = """<config>
  <luceneMatchVersion>9.12</luceneMatchVersion>
  <schemaFactory class="ClassicIndexSchemaFactory"/>
  <requestHandler name="/select" class="solr.SearchHandler"/>
  <requestHandler name="/update" class="solr.UpdateRequestHandler"/>
</config>
"""
_SCHEMA = """<schema name="products" version="1.7">
  <uniqueKey>sku</uniqueKey>
  <fieldType name="string" class="solr.StrField"/>
  <fieldType name="text" class="solr.TextField">
    <analyzer><tokenizer name="standard"/><filter name="lowercase"/></analyzer>
  </fieldType>
  <field name="sku" type="string" required="true"/>
  <field name="title" type="text"/>
  {vectors}
</schema>
"""


def install(home: Path = HOME) -> Path:
    """Fetch the jars, where that has not been done; returns their folder.

    Raises:
        NotHere: no Java or Maven, or an artifact cannot be fetched.
    """
    artifacts = [f"org.apache.solr:{part}:{VERSION}" for part in ("solr-core", "solr-test-framework")]
    return laid_out(home, lambda work, part: fetch_artifacts(work, part, artifacts), "java", "javac", "mvn")


@contextmanager
def started(vectors: str, *, wait_s: float = 120) -> Iterator[str]:
    """A server with an empty core ``products`` on a free port of this machine; the URL of the core.

    Args:
        vectors: what its schema says of vectors; it has ``sku`` and ``title`` besides.
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it cannot be had, or does not start.
    """
    home = install()
    with folder_for("solr") as folder:
        port, conf = free_port(), folder / "cores" / "products" / "conf"
        conf.mkdir(parents=True)
        (folder / "cores" / "solr.xml").write_text("<solr/>", encoding="utf-8")
        (conf.parent / "core.properties").write_text("name=products\n", encoding="utf-8")
        (conf / "schema.xml").write_text(_SCHEMA.format(vectors=vectors), encoding="utf-8")
        (conf / "solrconfig.xml").write_text(_CONFIG, encoding="utf-8")
        url = f"http://127.0.0.1:{port}/solr/products"
        classes = compiled(_SOURCE, home, f"{home}/*")
        command = [
            *(*JAVA, "-Xmx512m", f"-Dsolr.log.dir={folder}", "-cp", f"{classes}:{home}/*"),
            *("Solr", str(folder / "cores"), str(port)),
        ]
        with running("Solr", command, folder, lambda: ask(f"{url}/select?q=*:*"), wait_s):
            yield url


if __name__ == "__main__":
    field = '<fieldType name="clip" class="solr.DenseVectorField" vectorDimension="512" similarityFunction="cosine"/>'
    schema = f'{field}<field name="clip" type="clip" stored="false"/>'
    keep(started(schema), lambda url: f"Solr {VERSION}: {url}", __doc__)
