"""A real Weaviate: the server of its Go module, built here, since no binary is in a registry.

``python -m benchmarks.engines.weaviate`` builds it, which takes two cores twenty minutes and more, once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..processes import ask, free_port
from .nodes import HOMES, NotHere, folder_for, running

VERSION = "1.35.2"
HOME = HOMES / f"weaviate-{VERSION}"
_PROGRAM = HOME / "weaviate-server"


def build() -> None:
    """Build the server from its module.

    Raises:
        NotHere: no Go, or the build fails.
    """
    if shutil.which("go") is None:
        raise NotHere("there is no Go here: Weaviate needs 1.25")
    module = f"github.com/weaviate/weaviate/cmd/weaviate-server@v{VERSION}"
    environment = {**os.environ, "GOBIN": str(HOME)}
    ran = subprocess.run(["go", "install", module], env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NotHere(f"Weaviate cannot be built: {ran.stderr[-500:]}")


@contextmanager
def started(*, service: str = "http://127.0.0.1:9", wait_s: float = 60) -> Iterator[tuple[str, int]]:
    """A node with nothing in it; the URL of its REST and the port of its gRPC. What it wrote is gone afterwards.

    Args:
        service: URL of ``reco serve``, for its modules.
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it was not built, or does not start.
    """
    told = {
        "ENABLE_MODULES": "multi2vec-voyageai,multi2vec-clip",
        "VOYAGEAI_APIKEY": "any",
        "CLIP_INFERENCE_API": service,
        "CLIP_WAIT_FOR_STARTUP": "false",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
    }
    with (
        folder_for("weaviate") as folder,
        node(folder, [free_port() for _ in range(7)], told, wait_s=wait_s) as where,
    ):
        yield where


@contextmanager
def node(
    folder: Path, ports: Sequence[int], told: Mapping[str, str], *, wait_s: float = 60
) -> Iterator[tuple[str, int]]:
    """A node on a folder, which may hold what another one wrote; the URL of its REST and the port of its gRPC.

    Args:
        folder: of its data and log.
        ports: seven that are free.
        told: further variables of its environment.
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it was not built, or does not start.
    """
    if not _PROGRAM.exists():
        raise NotHere(f"there is no {_PROGRAM}: `python -m benchmarks.engines.weaviate` builds it, in half an hour")
    port, grpc, *others = ports
    environment = {
        **os.environ,
        "PERSISTENCE_DATA_PATH": f"{folder}/data",
        "DISABLE_TELEMETRY": "true",
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "GRPC_PORT": str(grpc),
        "CLUSTER_GOSSIP_BIND_PORT": str(others[0]),
        "CLUSTER_DATA_BIND_PORT": str(others[1]),
        "RAFT_PORT": str(others[2]),
        "RAFT_INTERNAL_RPC_PORT": str(others[3]),
        "GO_PROFILING_DISABLE": "true",
        "PROMETHEUS_MONITORING_PORT": str(others[4]),
        **told,
    }
    command = [str(_PROGRAM), "--host", "127.0.0.1", "--port", str(port), "--scheme", "http"]
    url = f"http://127.0.0.1:{port}"
    ready = f"{url}/v1/.well-known/ready"
    with running(f"Weaviate {VERSION}", command, folder, lambda: ask(ready), wait_s, env=environment):
        yield url, grpc


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        build()
    except NotHere as reason:
        sys.exit(str(reason))
    print(f"Weaviate {VERSION}: {_PROGRAM}")
