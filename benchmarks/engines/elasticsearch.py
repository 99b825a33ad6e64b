"""A single-node Elasticsearch 8.12 from Maven Central: the core and its HTTP module.

``python -m benchmarks.engines.elasticsearch`` fetches it (40 MB, once) and runs it until it is interrupted.

Scripts (Painless), X-Pack with the inference API, and ``GET /`` are missing. The core searches by vectors and texts,
and has filters, mappings and scans. Java 17 (JDK) and Maven are needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..processes import ask, free_port, running
from .nodes import ROOT, NotHere, folder_for, need

VERSION = "8.12.2"
HOME = ROOT / ".cache" / "engines" / f"elasticsearch-{VERSION}-laid-out"
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""One garbage collector thread and only the quick compiler: half the CPU of a start."""
FETCH_S = 300
"""Timeout of one fetch."""
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>reco</groupId><artifactId>layout</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_HEALTH = "/_cluster/health?wait_for_status=yellow&timeout=5s"
_CORE = (f"org.elasticsearch:elasticsearch:{VERSION}", "org.apache.logging.log4j:log4j-core:2.19.0")
_DESCRIPTOR = f"""description=transport-netty4
version={VERSION}
name=transport-netty4
classname=org.elasticsearch.transport.netty4.Netty4Plugin
java.version=17
elasticsearch.version={VERSION}
extended.plugins=
has.native.controller=false
modulename=org.elasticsearch.transport.netty4
"""
_LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
_POLICY = """grant {
permission java.net.SocketPermission "*", "accept,connect,resolve";
permission java.io.FilePermission "/proc/sys/net/core/somaxconn", "read";
permission java.lang.RuntimePermission "setContextClassLoader";
permission java.lang.RuntimePermission "getClassLoader";
};
"""
_CONSOLE = """package org.elasticsearch.io.ansi;
public class AnsiConsoleLoader implements java.util.function.Supplier<Object> { public Object get() { return null; } }
"""
"""A class that the core loads and that Maven does not have; null means that there is no terminal."""
_ARGUMENTS = """import java.nio.file.Path;
import org.elasticsearch.bootstrap.ServerArgs;
import org.elasticsearch.common.io.stream.OutputStreamStreamOutput;
import org.elasticsearch.common.settings.*;
public class Arguments {
  public static void main(String[] given) throws Exception {
    Settings.Builder settings = Settings.builder();
    for (int at = 2; at < given.length; at += 2) settings.put(given[at], given[at + 1]);
    OutputStreamStreamOutput out = new OutputStreamStreamOutput(System.out);
    new ServerArgs(false, false, null, KeyStoreWrapper.create(), settings.build(), Path.of(given[0]), Path.of(given[1]))
        .writeTo(out);
    out.flush();
  }
}
"""
"""Writes what the command line of a distribution writes to the server's standard input."""


def install(home: Path = HOME) -> Path:
    """Fetch Elasticsearch once, completely or not at all; returns its folder.

    Raises:
        NotHere: Java or Maven is missing, or an artifact cannot be fetched.
    """
    need("java", "javac", "mvn")
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as work:
            _fill(Path(work), Path(work) / "home")
            (Path(work) / "home").rename(home)
    return home


def _fetch(work: Path, folder: Path, *artifacts: str) -> set[str]:
    """Fetch Maven artifacts (``group:name:version``) and their dependencies to a folder; returns their file names."""
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    (work / "pom.xml").write_text(_POM.format(dependencies), encoding="utf-8")
    command = [
        *("mvn", "-B", "-q", "-C", "-f", f"{work}/pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime"),
        f"-DoutputDirectory={folder}",
    ]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise NotHere(f"Maven cannot fetch {', '.join(artifacts)} within {FETCH_S} s") from None
    except subprocess.CalledProcessError as error:
        raise NotHere(
            f"Maven cannot fetch {', '.join(artifacts)}: {error.stdout[-600:]}{error.stderr[-300:]}"
        ) from None
    return {path.name for path in folder.iterdir()}


def _fill(work: Path, home: Path) -> None:
    core = _fetch(work, home / "lib", *_CORE)
    netty = home / "modules" / "transport-netty4"
    plugin = _fetch(work, netty, f"org.elasticsearch.plugin:transport-netty4:{VERSION}")
    for jar in plugin & core:
        (netty / jar).unlink()
    (netty / "plugin-descriptor.properties").write_text(_DESCRIPTOR, encoding="utf-8")
    (netty / "plugin-security.policy").write_text(_POLICY, encoding="utf-8")
    (work / "AnsiConsoleLoader.java").write_text(_CONSOLE, encoding="utf-8")
    classes, console = work / "classes", home / "lib" / "tools" / "ansi-console"
    console.mkdir(parents=True)
    subprocess.run(["javac", "-d", classes, work / "AnsiConsoleLoader.java"], check=True)
    subprocess.run(["jar", "cf", console / "console.jar", "-C", classes, "."], check=True)
    (work / "Arguments.java").write_text(_ARGUMENTS, encoding="utf-8")
    java = ["javac", "-cp", f"{home}/lib/*", "-d", str(home / "arguments"), str(work / "Arguments.java")]
    subprocess.run(java, check=True)
    for empty in ("bin", "config", "plugins"):
        (home / empty).mkdir()


@contextmanager
def started(*, heap: str = "512m", wait_s: float = 180) -> Iterator[str]:
    """Run an empty node on free ports, and yield its URL; raises NotHere if it cannot be fetched or started."""
    home = install()
    with folder_for("elasticsearch") as folder:
        port = free_port()
        for made in ("config", "tmp", "logs", "data"):
            (folder / made).mkdir()
        (folder / "config" / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        settings = {
            "path.home": home, "path.data": folder / "data", "path.logs": folder / "logs", "cluster.name": "reco",
            "node.name": "reco", "discovery.type": "single-node", "network.host": "127.0.0.1", "http.port": port,
            "transport.port": free_port(), "cluster.routing.allocation.disk.threshold_enabled": "false",
        }  # fmt: skip
        given = [str(word) for pair in settings.items() for word in pair]
        program = [*JAVA, "-cp", f"{home}/arguments:{home}/lib/*", "Arguments"]
        arguments = subprocess.run(
            [*program, folder / "config", folder / "logs", *given], check=True, stdout=subprocess.PIPE
        ).stdout
        environment = {"PATH": "/usr/bin:/bin", "LIBFFI_TMPDIR": f"{folder}/tmp"}
        url, how = f"http://127.0.0.1:{port}", {"env": environment, **_other_user(folder)}
        command = _command(folder, home, heap)
        ready = partial(ask, url + _HEALTH)
        log = folder / "log"
        with running("Elasticsearch", command, log, ready, wait_s, fails=NotHere, stdin=arguments, cwd=folder, **how):
            yield url  # the server ends when its standard input is closed


def _other_user(folder: Path) -> dict[str, Any]:
    """Give the folder to `nobody` if this process is root, because Elasticsearch refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody")
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def _command(folder: Path, home: Path, heap: str) -> list[str]:
    return [
        *(*JAVA, f"-Xms{heap}", f"-Xmx{heap}", "-Djava.security.manager=allow"),
        *(f"-Djava.io.tmpdir={folder}/tmp", "-Des.distribution.type=tar", "-Dlog4j2.disable.jmx=true"),
        *("-Dlog4j.shutdownHookEnabled=false", "--module-path", f"{home}/lib", "--add-modules=jdk.net"),
        *("--add-modules=ALL-MODULE-PATH", "-m", "org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch"),
    ]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        with started() as address:
            print(f"Elasticsearch {VERSION}: {address}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except NotHere as reason:
        sys.exit(str(reason))
