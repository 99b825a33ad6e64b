"""The wheel alone, in an environment of its own and an empty folder: what a user has who has no clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from live_service import wait_until

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]  # built and installed once


def ran(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command as one types it, with nothing set that leads back to the clone."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=_env(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _env(**variables: str) -> dict[str, str]:
    ours = ("RECO_", "PYTHONPATH", "MYPY")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own build backend, without a network."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(source: Path, out: Path) -> Path:
    """The one wheel that pip makes of a source."""
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    done = ran(sys.executable, "-m", "pip", "wheel", *options, "-w", out, source, folder=out)
    assert done.returncode == 0, done.stderr
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and sees the packages of this one but no link to the clone."""
    folder = tmp_path_factory.mktemp("env") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done = ran(*pip, "install", "--no-deps", "--no-index", "--no-compile", "-q", wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    purelib = ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).stdout.strip()
    Path(purelib, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def reco(env: Path) -> Path:
    return env / "bin" / "reco"


def test_it_holds_the_package_its_types_and_the_model_as_it_is(wheel: Path, model: Path) -> None:
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"{info}/METADATA").decode()
        carried = "reco_plugin/triton_models/"
        stored = {name.removeprefix(carried): archive.read(name) for name in names if name.startswith(carried)}
    assert {name.partition("/")[0] for name in names} == {"reco_plugin", info}
    assert "reco_plugin/py.typed" in names
    assert stored == {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert wheel.stat().st_size < 21_000_000  # 16 MB of them drawings
    for line in ("Classifier: Typing :: Typed", "License-Expression: Apache-2.0", "Author: ", "Keywords: "):
        assert f"\n{line}" in metadata


def test_what_the_image_is_built_of_makes_a_wheel_without_the_model(tmp_path: Path) -> None:
    """It serves the one that is mounted; another in its place would go unnoticed."""
    copied = re.findall(
        r"^COPY (?!--from)(.+) \./(?:reco_plugin)?$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M
    )
    names = " ".join(copied).split()
    assert {"pyproject.toml", "reco_plugin"} <= set(names)
    for name in names:
        place, target = ROOT / name, tmp_path / "src" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if place.is_dir() else shutil.copy)(place, target)
    with zipfile.ZipFile(build(tmp_path / "src", tmp_path)) as archive:
        stored = archive.namelist()
    assert "reco_plugin/reco.py" in stored
    assert not [name for name in stored if name.endswith((".onnx", "manifest.json"))]


def test_it_works_in_an_empty_folder_with_nothing_set(reco: Path, env: Path, tmp_path: Path) -> None:
    done = ran(reco, "doctor", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"ok +model: {re.escape(str(env))}/.*/reco_plugin/triton_models: .*checksums match", done.stdout)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_in_one_line(reco: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("torch", "onnxruntime", "qdrant_edge"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})\n")
    done = ran(reco, "embed", "--text", "fox", "--memory", ":memory:", folder=tmp_path, PYTHONPATH=str(hidden))
    assert done.stderr.count("\n") == 1 and "pip install 'reco-plugin[" in done.stderr, done.stderr


@contextmanager
def serving(reco: Path, folder: Path) -> Iterator[str]:
    """`reco serve` in an empty folder, and its URL."""
    command = [str(reco), "serve", "--port", "0", "--threads", "1"]
    with (folder.parent / "log").open("w+") as log:
        running = subprocess.Popen(command, cwd=folder, env=_env(), stderr=log)
        try:
            said = (folder.parent / "log").read_text
            wait_until(lambda: running.poll() is not None or "http://" in said())
            found = re.search(r"http://[\d.]+:\d+", said())
            assert found, said()
            yield found[0]
        finally:
            running.kill()
            running.wait()


def test_it_serves(reco: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with serving(reco, folder) as url:
        body = {"model": "clip-reco-query", "input": ["a red fox"]}
        answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60)
        assert len(answer.json()["data"][0]["embedding"]) == 128, answer.text
        assert "<title>" in httpx.get(url, timeout=60).text  # the playground's files came along
