"""HTTP: ``tritonclient`` writes and reads the bodies, urllib3 transports them.

``tritonclient.http``'s own transport is not thread-safe and limits single reads, not a whole request.
"""

from __future__ import annotations

import json
import time
from http.client import BadStatusLine
from typing import Any

from ...errors import SessionError, importing
from ..base import Arrays
from . import wire
from .address import Address
from .wire import Inference, infer_inputs

with importing("tritonclient", "triton", "running models on a Triton server"):
    import tritonclient.http as client
    import urllib3
    from tritonclient.utils import InferenceServerException

_CONNECTIONS = 32
_CHUNK = 1 << 16
_JSON_LENGTH = "Inference-Header-Content-Length"


class HttpWire:
    """See :class:`~.wire.Wire`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._base = f"{'https' if address.tls else 'http'}://{address.authority}{address.path}/v2"
        tls: dict[str, Any] = {"ca_certs": str(address.ca)} if address.ca else {}
        self._pool = urllib3.PoolManager(maxsize=_CONNECTIONS, headers=dict(address.headers), retries=False, **tls)

    def infer(self, call: Inference, timeout: float) -> Arrays:
        """Compute the outputs, arrays (B, ...)."""
        inputs = infer_inputs(client.InferInput, call)
        outputs = [client.InferRequestedOutput(name, binary_data=True) for name in call.outputs]
        body, json_length = client.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
        headers = {} if json_length is None else {_JSON_LENGTH: str(json_length)}
        path = f"models/{call.graph}/versions/{call.version}/infer"
        answer, length = self._ask("POST", path, timeout, bytes(body), headers)
        try:
            result = client.InferenceServerClient.parse_response_body(answer, header_length=length)
        except (ValueError, InferenceServerException) as error:
            raise wire.make_server_error(self._address, f"what is no answer of Triton's: {error}") from error
        return {name: result.as_numpy(name) for name in call.outputs}

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """The configuration of a graph that is ready, as JSON."""
        answer, _ = self._ask("GET", f"models/{graph}/versions/{version}/config", timeout)
        try:
            return dict(json.loads(answer))
        except (ValueError, TypeError) as error:
            raise wire.make_server_error(self._address, f"what is no configuration of a model: {error}") from error

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        """Have the server map a shared-memory object of this host."""
        body = json.dumps({"key": key, "offset": 0, "byte_size": size}).encode()
        self._ask("POST", f"systemsharedmemory/region/{region}/register", timeout, body)

    def unregister(self, region: str, timeout: float) -> None:
        """Have the server unmap it."""
        self._ask("POST", f"systemsharedmemory/region/{region}/unregister", timeout)

    def close(self) -> None:
        """Close the connections of the pool."""
        self._pool.clear()

    def _ask(
        self, method: str, path: str, timeout: float, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, int | None]:
        """Body of the answer, and the length of its JSON part if the rest is binary."""
        deadline = time.monotonic() + timeout
        try:
            answer = self._pool.request(
                method,
                f"{self._base}/{path}",
                body=body or None,
                headers={**self._pool.headers, **(headers or {})},
                timeout=urllib3.Timeout(total=timeout),
                preload_content=False,
            )
            content = self._read(answer, deadline, timeout)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError) as error:
            raise wire.make_not_reached(self._address, error) from error
        except urllib3.exceptions.ProtocolError as error:
            if type(error.args[-1]) is BadStatusLine:  # another protocol answers there; its subclass: nothing answers
                raise wire.make_not_reached(self._address, error) from error
            raise wire.make_unavailable(self._address, str(error)) from error
        except urllib3.exceptions.TimeoutError as error:
            raise wire.make_timeout(self._address, timeout) from error
        except urllib3.exceptions.HTTPError as error:
            raise wire.make_unavailable(self._address, str(error)) from error
        if answer.status != 200:
            raise self._fault(answer.status, _message(content))
        length = answer.headers.get(_JSON_LENGTH)
        return content, None if length is None else int(length)

    def _read(self, answer: Any, deadline: float, timeout: float) -> bytes:
        """The whole body; a server that sends it byte by byte also times out at the deadline."""
        chunks = []
        while chunk := answer.read1(_CHUNK):
            chunks.append(chunk)
            if time.monotonic() > deadline:
                answer.close()
                raise wire.make_timeout(self._address, timeout)
        answer.release_conn()
        return b"".join(chunks)

    def _fault(self, status: int, message: str) -> SessionError:
        reason = f"HTTP {status}: {message}"
        if status in {401, 403}:
            return wire.make_access_error(self._address, reason)
        if status in {429, 502, 503, 504}:
            return wire.make_unavailable(self._address, reason)
        return wire.make_server_error(self._address, reason)


def _message(content: bytes) -> str:
    """The message of an error: Triton sends ``{"error": …}``, a proxy any text."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
