"""A real OpenSearch of one node, laid out from what Maven Central has: core, k-NN, ml-commons and neural-search.

``python -m benchmarks.engines.opensearch`` fetches it (about 450 MB, once), starts it and waits until it is ended.

There is no distribution on Maven, so the folder that it would be unpacked to is made here: ``lib/`` with the jars of
the core, a folder with a descriptor for each module, and the plugins' archives unpacked. The archive of k-NN holds no
native library: ``engine: lucene`` works, ``faiss`` ends the node at the first document.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..processes import ask, free_port
from .nodes import HOMES, JAVA, fetch_artifacts, folder_for, keep, laid_out, running

VERSION = "2.19.1"
HOME = HOMES / f"opensearch-{VERSION}"
HEALTH = "/_cluster/health?wait_for_status=yellow&timeout=5s"
CORE = (
    f"org.opensearch:opensearch:{VERSION}",
    f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
    "org.apache.logging.log4j:log4j-core:2.21.0",  # optional in the core's POM, yet it does not start without
)
MODULES: Mapping[str, tuple[str, str]] = {  # artifact -> name of the module, class of its plugin
    "transport-netty4-client": ("transport-netty4", "org.opensearch.transport.Netty4Plugin"),
    "analysis-common": ("analysis-common", "org.opensearch.analysis.common.CommonAnalysisPlugin"),
    "lang-painless": ("lang-painless", "org.opensearch.painless.PainlessPlugin"),
    "reindex-client": ("reindex", "org.opensearch.index.reindex.ReindexPlugin"),
}
PLUGINS = ("opensearch-job-scheduler", "opensearch-ml-plugin", "opensearch-knn", "neural-search")
DESCRIPTOR = """description={name}
version={version}
name={name}
classname={classname}
java.version=11
opensearch.version={version}
extended.plugins=
has.native.controller=false
"""
_POLICIES = {  # of modules that do what Java's security manager otherwise refuses
    "lang-painless": (
        'permission java.lang.RuntimePermission "createClassLoader";',  # for the classes of scripts
        'permission java.lang.RuntimePermission "getClassLoader";',
    ),
    "transport-netty4": (
        'permission java.net.SocketPermission "*", "accept,connect,resolve";',
        'permission java.io.FilePermission "/proc/sys/net/core/somaxconn", "read";',
        'permission java.lang.RuntimePermission "setContextClassLoader";',
    ),
}
_NODE = """cluster.name: reco
node.name: reco
discovery.type: single-node
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport}
path.data: {folder}/data
path.logs: {folder}/logs
bootstrap.system_call_filter: false
cluster.routing.allocation.disk.threshold_enabled: false
plugins.ml_commons.native_memory_threshold: 100
"""
LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


def install(home: Path = HOME) -> Path:
    """Fetch and lay out OpenSearch, where that has not been done; returns its folder.

    Raises:
        NotHere: no Java or Maven, or an artifact cannot be fetched.
    """
    return laid_out(home, _fill, "java", "mvn")


def _fill(work: Path, home: Path) -> None:
    core = fetch_artifacts(work, home / "lib", CORE)
    for artifact, (name, classname) in MODULES.items():
        folder = home / "modules" / name
        for jar in fetch_artifacts(work, folder, [f"org.opensearch.plugin:{artifact}:{VERSION}"]) & core:
            (folder / jar).unlink()  # a class in core and module ends the start ("jar hell")
        descriptor = DESCRIPTOR.format(name=name, classname=classname, version=VERSION)
        (folder / "plugin-descriptor.properties").write_text(descriptor, encoding="utf-8")
        if name in _POLICIES:
            policy = "grant {\n" + "\n".join(_POLICIES[name]) + "\n};\n"
            (folder / "plugin-security.policy").write_text(policy, encoding="utf-8")
    archives = [f"org.opensearch.plugin:{name}:{VERSION}.0:zip" for name in PLUGINS]
    for archive in fetch_artifacts(work, work / "zips", archives):
        with zipfile.ZipFile(work / "zips" / archive) as packed:
            packed.extractall(home / "plugins" / archive.removesuffix(f"-{VERSION}.0.zip"))
    for empty in ("bin", "config", "extensions"):  # made at the start otherwise, by a user who may not
        (home / empty).mkdir()


@contextmanager
def started(*, heap: str = "1g", wait_s: float = 180) -> Iterator[str]:
    """A node with nothing in it, on free ports of this machine; its URL. Everything that it wrote is gone afterwards.

    Args:
        heap: of Java.
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it cannot be had, or does not start.
    """
    home = install()
    with folder_for("opensearch") as folder:
        port, config = free_port(), folder / "config"
        for made in (config, folder / "tmp"):
            made.mkdir()
        node = _NODE.format(port=port, transport=free_port(), folder=folder)
        (config / "opensearch.yml").write_text(node, encoding="utf-8")
        (config / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        url, command = f"http://127.0.0.1:{port}", _command(home, folder, heap)
        with running("OpenSearch", command, folder, lambda: ask(url + HEALTH), wait_s, **other_user(folder)):
            yield url


def _command(home: Path, folder: Path, heap: str) -> list[str]:
    return [
        *(*JAVA, f"-Xms{heap}", f"-Xmx{heap}"),
        *("--add-modules", "jdk.incubator.vector", "-Djava.security.manager=allow"),
        *(f"-Djava.io.tmpdir={folder}/tmp", "-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true"),
        *(f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={folder}/config"),
        *("-Dopensearch.distribution.type=tar", "-Dopensearch.bundled_jdk=false"),
        *("-cp", f"{home}/lib/*", "org.opensearch.bootstrap.OpenSearch"),
    ]


def other_user(folder: Path) -> dict[str, Any]:
    """OpenSearch refuses to run as root: then it is `nobody`, to whom the folder is given."""
    if os.geteuid() != 0:
        return {}
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody")
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


if __name__ == "__main__":
    keep(started(), lambda url: f"OpenSearch {VERSION}: {url}", __doc__)
