"""A real OpenSearch of one node, laid out from what Maven Central has: core, k-NN, ml-commons and neural-search.

``python -m benchmarks.engines.opensearch`` fetches it (about 450 MB, once), starts it and waits until it is ended.

There is no distribution on Maven, so the folder that it would be unpacked to is made here: ``lib/`` with the jars of
the core, a folder with a descriptor for each module, and the plugins' archives unpacked. The archive of k-NN holds no
native library: ``engine: lucene`` works, ``faiss`` ends the node at the first document.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
VERSION = "2.19.1"
HOME = ROOT / ".cache" / "engines" / f"opensearch-{VERSION}"
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
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>reco</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>{}</dependency>"
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


FETCH_S = 300
"""For each of six fetches; a registry that stalls must not stop a whole run."""


class NotHere(Exception):
    """This machine cannot run the engine; the message says why."""


def need(*programs: str) -> None:
    """Check that programs are there.

    Raises:
        NotHere: one is not.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise NotHere(f"there is no {program} here")


def install(home: Path = HOME) -> Path:
    """Fetch and lay out OpenSearch, where that has not been done; returns its folder.

    Raises:
        NotHere: no Java or Maven, or an artifact cannot be fetched.
    """
    need("java", "mvn")
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as work:
        part = Path(work) / "home"
        core = fetch_artifacts(Path(work), part / "lib", CORE)
        for artifact, (name, classname) in MODULES.items():
            folder = part / "modules" / name
            for jar in fetch_artifacts(Path(work), folder, [f"org.opensearch.plugin:{artifact}:{VERSION}"]) & core:
                (folder / jar).unlink()  # a class in core and module ends the start ("jar hell")
            descriptor = DESCRIPTOR.format(name=name, classname=classname, version=VERSION)
            (folder / "plugin-descriptor.properties").write_text(descriptor, encoding="utf-8")
            if name in _POLICIES:
                policy = "grant {\n" + "\n".join(_POLICIES[name]) + "\n};\n"
                (folder / "plugin-security.policy").write_text(policy, encoding="utf-8")
        archives = [f"org.opensearch.plugin:{name}:{VERSION}.0:zip" for name in PLUGINS]
        for archive in fetch_artifacts(Path(work), Path(work) / "zips", archives):
            with zipfile.ZipFile(Path(work) / "zips" / archive) as packed:
                packed.extractall(part / "plugins" / archive.removesuffix(f"-{VERSION}.0.zip"))
        for empty in ("bin", "config", "extensions"):  # made at the start otherwise, by a user who may not
            (part / empty).mkdir()
        part.rename(home)  # whole or not at all
    return home


def fetch_artifacts(work: Path, folder: Path, artifacts: Sequence[str]) -> set[str]:
    """Put artifacts (``group:name:version``, or with ``:zip``) into a folder; jars with those they need."""
    parts = [[*artifact.split(":"), "jar"][:4] for artifact in artifacts]
    dependencies = "".join(
        _DEPENDENCY.format(group, name, version, f"<type>{kind}</type>") for group, name, version, kind in parts
    )
    pom = work / "pom.xml"
    pom.write_text(_POM.format(name="layout", dependencies=dependencies), encoding="utf-8")
    command = [
        *("mvn", "-B", "-q", "-C", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"),
        f"-DoutputDirectory={folder}",
        *(["-DexcludeTransitive=true"] if parts[0][3] == "zip" else []),
    ]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise NotHere(f"Maven did not fetch {', '.join(artifacts)} within {FETCH_S} s") from None
    if ran.returncode:
        said = next(
            (line for line in ran.stdout.splitlines() if "ERROR" in line), ran.stdout[-300:] + ran.stderr[-300:]
        )
        raise NotHere(f"Maven cannot fetch {', '.join(artifacts)}: {said}")
    return {path.name for path in folder.iterdir()}


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
    with tempfile.TemporaryDirectory(prefix="reco-opensearch-", ignore_cleanup_errors=True) as name:
        folder, port, transport = Path(name), free_port(), free_port()
        config = folder / "config"
        for made in (config, folder / "tmp"):
            made.mkdir()
        node = _NODE.format(port=port, transport=transport, folder=folder)
        (config / "opensearch.yml").write_text(node, encoding="utf-8")
        (config / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(home, folder, heap), cwd=folder, stdout=output, stderr=subprocess.STDOUT, **other_user(folder)
            )
        try:
            url = f"http://127.0.0.1:{port}"
            await_node("OpenSearch", url, process, log, wait_s)
            yield url
        finally:
            process.kill()  # an end in order takes seconds, and all that it wrote goes with the folder
            process.wait()


def _command(home: Path, folder: Path, heap: str) -> list[str]:
    return [
        *("java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC"),  # one collector's thread: two cores are shared
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


def await_node(
    name: str,
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    wait_s: float,
    path: str = "/_cluster/health?wait_for_status=yellow&timeout=5s",
) -> None:
    """Wait until a node answers at a path.

    Raises:
        NotHere: it does not, with the end of its log.
    """
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise NotHere(f"{name} does not start:\n{said}")


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def keep(server: AbstractContextManager[T], told: Callable[[T], str]) -> None:
    """Run a server until it is interrupted, and say where it is."""
    try:
        with server as where:
            print(told(where), flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        pass
    except NotHere as reason:
        sys.exit(str(reason))


def main() -> None:
    """Run a node until it is interrupted."""
    keep(started(), lambda url: f"OpenSearch {VERSION}: {url}")


if __name__ == "__main__":
    main()
