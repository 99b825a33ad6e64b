"""The model ``reco``: Triton alone answers with refined vectors, its memory on a Qdrant server, no plugin process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from qdrant_stand_in import StandIn, serving
from triton_server import ENCODERS, ROOT, VENV, TritonServer
from tritonclient.utils import InferenceServerException

from reco_plugin import Reco
from reco_plugin.errors import ConfigError
from reco_plugin.serve.triton_model import settings_beside

pytestmark = [
    pytest.mark.xdist_group("triton"),
    pytest.mark.skipif(
        not (VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}").is_dir(),
        reason="Triton's Python is another one than that of the tests, and the model needs this package in it",
    ),
]
REPOSITORY = ROOT / "deploy" / "triton"
TEXTS = ["a small red circle", "a large blue square", "something that is not there"]


@pytest.fixture(scope="module")
def qdrant() -> Iterator[StandIn]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def plugin(qdrant: StandIn, model: Path, drawings: list[Any]) -> Iterator[Reco]:
    """The plugin in this process, on the same memory."""
    with Reco.open(model, memory=qdrant.url("http")) as opened:
        opened.memory.add(drawings)
        opened.memory.calibrate()
        yield opened


@pytest.fixture(scope="module")
def triton(start_server: Callable[..., TritonServer], plugin: Reco, model: Path) -> Iterator[TritonServer]:
    """A server with the model folder and, from a second repository, the model ``reco``."""
    server = start_server(model, REPOSITORY, environment=variables(model, plugin.memory.location))
    yield server
    server.stop()


def variables(model: Path, memory: str) -> dict[str, str]:
    """The settings of the server's model, as a container would get them."""
    return {"RECO_MODEL": str(model), "RECO_MEMORY": memory, "RECO_THREADS": "1"}


class Caller:
    """Asks by one of the official clients."""

    def __init__(self, protocol: str, server: TritonServer) -> None:
        self.module: Any = grpc if protocol == "grpc" else http
        self.client = self.module.InferenceServerClient(server.url(protocol).partition("://")[2])

    def ask(self, name: str, items: list[Any], **parameters: Any) -> dict[str, np.ndarray]:
        values = np.array(items, object).reshape(-1, 1)
        given = self.module.InferInput(name, list(values.shape), "BYTES")
        given.set_data_from_numpy(values)
        answer = self.client.infer("reco", [given], parameters=parameters or None)
        return {name: answer.as_numpy(name) for name in ("embedding", "moved", "truncated", "degraded")}


@pytest.fixture(params=["grpc", "http"])
def caller(request: pytest.FixtureRequest, triton: TritonServer) -> Iterator[Caller]:
    opened = Caller(request.param, triton)
    yield opened
    opened.client.close()


@pytest.fixture(scope="module")
def files(drawings: list[Any]) -> list[bytes]:
    """Encoded images, as a caller has them."""

    def encoded(image: Any, kind: str) -> bytes:
        file = io.BytesIO()
        image.save(file, kind)
        return file.getvalue()

    return [encoded(drawings[row].image, "PNG" if row else "JPEG") for row in (0, 20, 21)]


def test_a_text_comes_back_refined_as_by_the_plugin(caller, plugin):
    found = caller.ask("text", TEXTS, caution="bold")
    expected = plugin.embed(TEXTS, modality="text", caution="bold")
    np.testing.assert_allclose(found["embedding"], expected.vectors, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["moved"][:, 0], expected.moved, rtol=0, atol=1e-5)
    assert expected.moved.max() > 1e-3, "nothing is refined, so this compares plain vectors"
    assert [*found["degraded"][:, 0]] == [b""] * 3
    assert not found["truncated"].any()


def test_an_image_comes_back_refined_as_by_the_plugin(caller, plugin, files):
    expected = plugin.embed(files, modality="image", caution="bold")
    found = caller.ask("image", files, caution="bold")["embedding"]
    np.testing.assert_allclose(found, expected.vectors, rtol=0, atol=1e-5)
    assert expected.moved.max() > 1e-3, "nothing is refined, so this compares plain vectors"


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({"refine": False}, {"refine": False}),
        ({"input_type": "document"}, {"refine": False}),
        ({"input_type": "document", "refine": True}, {"refine": True, "role": "candidate"}),
        ({"k": 3, "caution": "bold"}, {"k": 3, "caution": "bold"}),
        ({"fuser": "paper"}, {"fuser": "paper"}),
        ({"where": '{"colour": "red"}'}, {"where": {"colour": "red"}}),
    ],
)
def test_parameters_are_the_options_of_the_plugin(caller, plugin, parameters, options):
    expected = plugin.embed_texts(TEXTS, **options)
    np.testing.assert_allclose(caller.ask("text", TEXTS, **parameters)["embedding"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "items", "parameters", "message"),
    [
        ("image", [b"not an image"], {}, "row 0: an image .12 bytes. cannot be read"),
        ("text", ["red", b"\xff\xfe"], {}, "text, row 1: is not UTF-8"),
        ("text", ["red " * 200], {"truncate": False}, "longer than the .* tokens"),
        ("text", ["red"], {"kk": 3}, "parameter kk: .*Known: k, "),
        ("text", ["red"], {"k": 0}, "parameter k: .*greater than or equal to 1"),
        ("text", ["red"], {"where": "{"}, "parameter where"),
        ("text", ["red"], {"fuser": "mean"}, "fuser is mean"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(caller, name, items, parameters, message):
    with pytest.raises(InferenceServerException, match=message) as refused:
        caller.ask(name, items, **parameters)
    assert refused.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")


def test_a_text_that_is_too_long_is_cut_and_says_so(caller, plugin):
    long = ["red " * 200]
    found = caller.ask("text", long)
    assert found["truncated"].all()
    np.testing.assert_allclose(found["embedding"], plugin.embed_texts(long), rtol=0, atol=1e-5)


def test_of_requests_that_triton_merges_a_bad_one_fails_alone(triton, plugin, files):
    def ask(number: int) -> np.ndarray | str:
        caller = Caller("grpc", triton)
        try:
            return caller.ask("image", [b"broken" if number % 5 == 0 else files[number % 3]])["embedding"][0]
        except InferenceServerException as error:
            return str(error.message())
        finally:
            caller.client.close()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(40)))
    expected = plugin.embed_images(files)
    for number, answer in enumerate(answers):
        if number % 5 == 0:
            assert "cannot be read" in answer
        else:
            np.testing.assert_allclose(answer, expected[number % 3], rtol=0, atol=1e-5)


def test_while_qdrant_is_away_answers_are_plain_and_say_so(start_server, plugin, model):
    server = start_server(
        model, REPOSITORY, environment=variables(model, "http://127.0.0.1:9"), models=("reco", *ENCODERS)
    )
    found = Caller("grpc", server).ask("text", TEXTS)
    np.testing.assert_allclose(found["embedding"], plugin.embed_texts(TEXTS, refine=False), rtol=0, atol=1e-5)
    assert {*found["degraded"][:, 0]} <= {b"memory_error", b"memory_circuit_open"}
    server.stop()


def test_the_model_folder_is_the_one_beside_it_or_must_be_named(model, tmp_path, monkeypatch):
    assert settings_beside(model / "reco").model == model
    with pytest.raises(ConfigError, match=r"set RECO_MODEL to the model folder that is served; .* is none"):
        settings_beside(tmp_path / "reco")
    monkeypatch.setenv("RECO_MODEL", str(model))
    assert settings_beside(tmp_path / "reco").model == model
    monkeypatch.setenv("RECO_TRITON_URL", "grpc://localhost:8001")
    with pytest.raises(ConfigError, match="unset RECO_TRITON_URL"):
        settings_beside(tmp_path / "reco")
