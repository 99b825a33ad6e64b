"""How long until the package is imported, a model encodes, and the service is ready: processes of their own.

python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from .markdown import table

ROUNDS = 5
CODE = {
    "python alone": "pass",
    "`import reco_plugin`": "import reco_plugin",
    "`from reco_plugin import Reco`": "from reco_plugin import Reco",
    "`Reco.open()` and a text": (
        "from reco_plugin import Reco\nwith Reco.open('triton_models', memory=':memory:') as reco:\n"
        "    reco.embed_texts(['a red fox'])"
    ),
}


def seconds(code: str) -> float:
    """Of a new interpreter."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begun


def ready() -> float:
    """Seconds until `reco serve` says that it is ready, with the shipped model and an empty memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "reco_plugin", "serve", "--model", "triton_models", "--port", str(port)]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--memory", folder],
            env={**os.environ, "RECO_SERVE_PAGE": "false"},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                        return time.perf_counter() - begun
                except (urllib.error.URLError, OSError):
                    time.sleep(0.01)
        finally:
            process.terminate()
            process.wait()
    raise RuntimeError("reco serve ended before it was ready: start it by hand to see why")


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    found = dict.fromkeys([*CODE, "`reco serve` is ready"], float("inf"))
    for _ in range(ROUNDS):
        for name, code in CODE.items():
            found[name] = min(found[name], seconds(code))
        found["`reco serve` is ready"] = min(found["`reco serve` is ready"], ready())
    bare = found.pop("python alone")
    print(table(["until", "seconds beyond Python's own start"], [[k, f"{s - bare:.2f}"] for k, s in found.items()]))


if __name__ == "__main__":
    main()
