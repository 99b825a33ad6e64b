"""``python -m benchmarks.imports``: imports as search engines do them, without a second try, and what is lost.

Four of them, against ``reco serve`` in processes of its own and with default settings: one object a request, 128 at
once (Weaviate); two services behind a balancer, each started anew in turn; connections that are kept while a service
stops; and a queue that is full, where a client tries again if ``x-amzn-errortype`` says so (OpenSearch).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from reco_plugin.quickstart.dataset import Quickstart, load

from .page import machine, page_file, table, tell
from .processes import free_port
from .service import Service, started

MODEL = Path("triton_models")
AT_ONCE = 128
_CLOSES = b"connection: close"
_PROBED_S = 0.5  # how often a balancer asks whether a service is ready
_FLAGS = ("--log-level", "warning")


@dataclass
class Line:
    """A connection of a client that keeps it for as long as it may, and sends nothing twice."""

    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request; return status and head of the answer, in small letters.

        Raises:
            ConnectionError: no connection, or it was reset before the answer was there.
        """
        reader, writer = self._streams = self._streams or await asyncio.open_connection("127.0.0.1", self.port)
        try:
            lines = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length.partition(b":")[2]))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            raise ConnectionResetError("the connection was closed before the answer") from error
        if _CLOSES in head:
            self.close()
        return int(head.split(b" ", 2)[1]), head

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def import_all(port: int, bodies: Sequence[bytes], path: str, at_once: int) -> Counter[str]:
    """Send each body once; count statuses, and connections that were refused or reset."""
    left, seen = iter(bodies), Counter[str]()

    async def importer() -> None:
        line = Line(port)
        for body in left:
            try:
                seen[str((await line.ask(path, body))[0])] += 1
            except ConnectionResetError:
                seen["reset"] += 1
            except OSError:
                seen["refused"] += 1
        line.close()

    await asyncio.gather(*(importer() for _ in range(at_once)))
    return seen


def one_object(title: str, picture: Image.Image, kind: str = "PNG") -> bytes:
    """What Weaviate's multi2vec-voyageai sends of an object with a title and a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts: list[dict[str, str]] = [{"type": "text", "text": title}, {"type": "image_base64", "image_base64": uri}]
    asked: dict[str, Any] = {"inputs": [{"content": [one]} for one in parts], "model": "clip-reco"}
    return json.dumps(asked | {"truncation": True, "input_type": "document"}, ensure_ascii=False).encode()


def objects(data: Quickstart, count: int) -> list[bytes]:
    """Drawings, of 2 kB or so."""
    rows = (number % len(data.images) for number in range(count))
    return [
        one_object(f"{number}: {data.items[row].caption}", Image.fromarray(data.images[row]))
        for number, row in enumerate(rows)
    ]


def photos(count: int) -> list[bytes]:
    """The same of pictures of 1.2 MB, with a title of another script; they are noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), dtype=np.uint8)
    return [one_object("grün 狐", Image.fromarray(pixels), "JPEG")] * count


@contextmanager
def one_service(*flags: str) -> Iterator[Service]:
    """A service without a memory, which documents do not need."""
    with (
        tempfile.TemporaryDirectory() as folder,
        started(MODEL, ":memory:", Path(folder) / "log", [*_FLAGS, *flags]) as service,
    ):
        yield service


def port_of(service: Service) -> int:
    """Where it listens."""
    return int(service.url.rpartition(":")[2])


def one_a_request(bodies: Sequence[bytes], *flags: str) -> tuple[Counter[str], float]:
    """Weaviate's way: one object a request, 128 at once; counts, and seconds."""
    with one_service(*flags) as service:
        began = time.perf_counter()
        seen = asyncio.run(import_all(port_of(service), bodies, "/v1/multimodalembeddings", AT_ONCE))
        return seen, time.perf_counter() - began


@dataclass
class Balancer:
    """Passes connections on to services that were ready at the last look, in turn; tries none twice."""

    services: Sequence[int]
    ready: set[int] = field(default_factory=set)
    _turn: int = 0

    @asynccontextmanager
    async def listening(self) -> Any:
        """Its port."""
        looking = asyncio.create_task(self._look())
        while len(self.ready) < len(self.services):
            await asyncio.sleep(0.05)
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            looking.cancel()

    async def _look(self) -> None:
        async with httpx.AsyncClient(timeout=5) as client:
            while True:
                for port in self.services:
                    with suppress(httpx.TransportError):
                        if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                            self.ready.add(port)
                            continue
                    self.ready.discard(port)
                await asyncio.sleep(_PROBED_S)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        chosen = sorted(self.ready) or list(self.services)
        try:
            inner = await asyncio.open_connection("127.0.0.1", chosen[self._turn % len(chosen)])
        except OSError:
            writer.close()
            return

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while part := await source.read(1 << 16):
                    target.write(part)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))


def one_of_two_restarts(bodies: Sequence[bytes]) -> tuple[Counter[str], int]:
    """An import through a balancer, while each of two services is ended and started again; counts, and restarts."""

    async def watched(folder: Path) -> tuple[Counter[str], int]:
        ports, opened = [free_port(), free_port()], [ExitStack(), ExitStack()]

        def start(place: int) -> None:
            log = folder / f"log-{place}"
            opened[place].enter_context(started(MODEL, ":memory:", log, _FLAGS, port=ports[place]))

        try:
            for place in range(2):
                await asyncio.to_thread(start, place)
            async with Balancer(ports).listening() as port:
                importing = asyncio.create_task(import_all(port, bodies, "/v1/multimodalembeddings", 16))
                restarts = 0
                while not importing.done():
                    await asyncio.sleep(1)
                    await asyncio.to_thread(opened[restarts % 2].close)
                    await asyncio.to_thread(start, restarts % 2)
                    restarts += 1
                    await asyncio.sleep(2 * _PROBED_S)  # until the balancer sees it
                return await importing, restarts
        finally:
            for one in opened:
                await asyncio.to_thread(one.close)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(watched(Path(folder)))


def kept_while_it_stops(connections: int, pause_s: float) -> Counter[str]:
    """Connections that ask on and on, with a pause, while the service is ended: how each of them ended."""

    async def watched() -> Counter[str]:
        stack = ExitStack()
        service = await asyncio.to_thread(stack.enter_context, one_service())
        body = json.dumps({"input": ["a red fox"], "model": "clip"}).encode()
        asked = 0

        async def caller() -> str:
            nonlocal asked
            line = Line(port_of(service))
            while True:
                try:
                    status, head = await line.ask("/v1/embeddings", body)
                except OSError:
                    return "reset"
                if status != 200:
                    return str(status)
                if _CLOSES in head:
                    return "told to close, after its answer"
                asked += 1
                await asyncio.sleep(pause_s)

        callers = [asyncio.create_task(caller()) for _ in range(connections)]
        while asked < 3 * connections:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(stack.close)
        return Counter(await asyncio.gather(*callers))

    return asyncio.run(watched())


def queue_is_full(bodies: Sequence[bytes], path: str, retries: int = 10) -> Counter[str]:
    """As ml-commons: all at once, and again after 200 ms where the answer calls itself throttled; the last statuses."""

    async def all_at_once(port: int) -> Counter[str]:
        async def store(body: bytes) -> str:
            line = Line(port)
            for _ in range(1 + retries):
                status, head = await line.ask(path, body)
                if status == 200 or b"x-amzn-errortype: throttlingexception" not in head:
                    break
                await asyncio.sleep(0.2)
            line.close()
            return str(status)

        return Counter(await asyncio.gather(*map(store, bodies)))

    with one_service("--threads", "1", "--queue", "1") as service:
        return asyncio.run(all_at_once(port_of(service)))


def main() -> int:
    """Run all, print, write the block of the page; 1 where something was lost."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--objects", type=int, default=10_000)
    words.add_argument("--photos", type=int, default=400)
    words.add_argument("--documents", type=int, default=3_000, help="of the import while services restart")
    words.add_argument("--page", type=page_file, help="such as docs/measurements/imports.md")
    given = words.parse_args()
    data = load()
    bodies = objects(data, given.objects)
    rows = list[tuple[str, str, Counter[str]]]()
    seen, took = one_a_request(bodies)
    rows.append((f"one object a request, {AT_ONCE} at once", f"{took:.0f} s", seen))
    large = photos(given.photos)
    seen, took = one_a_request(large)
    rows.append((f"the same of {len(large[0]) / 1e6:.1f} MB each", f"{took:.0f} s", seen))
    seen, restarts = one_of_two_restarts(bodies[: given.documents])
    rows.append(("two services behind a balancer, one restarts", f"{restarts} restarts", seen))
    for pause_s in (0.0, 0.05, 1.0):
        rows.append((f"20 kept connections, {pause_s:g} s between requests", "stops", kept_while_it_stops(20, pause_s)))
    texts = [json.dumps({"input": [item.caption], "model": "clip"}).encode() for item in data.items[:100]]
    images = [
        json.dumps({"inputText": "null", "inputImage": json.loads(body)["inputs"][1]["content"][0]["image_base64"]})
        for body in bodies[:100]
    ]
    rows.append(("queue of 1, 100 texts, 10 retries", "", queue_is_full(texts, "/v1/embeddings")))
    as_bytes = [body.encode() for body in images]
    rows.append(("queue of 1, 100 images, 10 retries", "", queue_is_full(as_bytes, "/model/clip/invoke")))
    good = {"200", "told to close, after its answer"}
    text = f"`{' '.join(['python -m benchmarks.imports', *sys.argv[1:]])}`\n\n"
    shown = [
        (name, how, f"{seen.total():,}", f"{sum(n for word, n in seen.items() if word not in good):,}", _said(seen))
        for name, how, seen in rows
    ]
    text += table(["import", "", "sent", "lost", "answers"], shown, left=2) + f"\n\nMachine: {machine()}.\n"
    tell(given.page, {"imports": text})
    return int(any(row[3] != "0" for row in shown))


def _said(seen: Counter[str]) -> str:
    return ", ".join(f"{word}: {count:,}" for word, count in seen.most_common())


if __name__ == "__main__":
    sys.exit(main())
