"""docker-compose.yml, read by docker compose itself; and its probes, run against servers that answer well or badly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.artifact import GRAPHS
from reco_plugin.config import load_settings
from reco_plugin.serve.app import create_app
from reco_plugin.serve.settings import ServeSettings
from reco_plugin.train.recipe import ENGINE_CACHE

Compose = Callable[..., dict[str, Any]]
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+[\w.-]*$")
ONE_SHOT = {"triton-cache"}
SERVICES = ("reco", "reco-no-triton")


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        (["cpu"], {"qdrant", "triton-cpu", "reco"}),
        (["gpu"], {"qdrant", "triton-gpu", "triton-cache", "reco"}),
        (["no-triton"], {"qdrant", "reco-no-triton"}),
    ],
)
def test_a_profile_starts_one_triton_at_most(compose: Compose, profiles: list[str], expected: set[str]) -> None:
    assert set(compose(*profiles)["services"]) == expected


def test_without_a_profile_it_is_the_cpu(run: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    done = run("docker-compose", "config", "--services", cwd=root)
    assert set(done.stdout.split()) == {"qdrant", "triton-cpu", "reco"}, done.stderr


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("healthcheck:", "healthchek:"),
        ("start_period: 60s", "start_period: soon"),
        ("service_healthy", "service_helthy"),
    ],
)
def test_compose_refuses_what_is_misspelt(run: Any, root: Path, tmp_path: Path, good: str, bad: str) -> None:
    text = (root / "docker-compose.yml").read_text("utf-8")
    assert good in text
    (tmp_path / "docker-compose.yml").write_text(text.replace(good, bad), "utf-8")
    assert run("docker-compose", "--profile", "*", "config", cwd=tmp_path).returncode != 0


def test_each_container_is_locked_in(compose: Compose) -> None:
    for name, service in compose()["services"].items():
        assert PINNED.match(service["image"]), name
        assert service.get("read_only", False), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"], name
        assert "cpus" not in limits and "ulimits" not in service, f"{name} would not start where they cannot be had"
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        if name not in ONE_SHOT:
            assert int(service["user"].split(":")[0]) > 0, name
            assert "healthcheck" in service or name in SERVICES, f"{name}: reco's is in the image"


def test_a_folder_in_ram_can_be_written_after_a_restart_too(compose: Compose) -> None:
    """All may write an image's /tmp. Another folder has mode 755 when its container starts again: its user owns it."""
    for name, service in compose()["services"].items():
        for mount in service.get("tmpfs", []):
            place, _, options = mount.partition(":")
            owner = dict(word.split("=") for word in options.split(",") if word.startswith(("uid=", "gid=")))
            assert place == "/tmp" or f"{owner.get('uid')}:{owner.get('gid')}" == service["user"], (name, mount)


def test_triton_serves_the_shipped_model_and_cannot_change_it(compose: Compose, root: Path) -> None:
    for name in ("triton-cpu", "triton-gpu"):
        service = compose()["services"][name]
        models = {Path(mount["source"]): mount for mount in service["volumes"]}[root / "triton_models"]
        assert models["read_only"] is True
        assert f"--model-repository={models['target']}" in service["command"]
    assert all((root / "triton_models" / graph / "config.pbtxt").is_file() for graph in GRAPHS)


def test_the_gpu_profile_reserves_a_gpu_and_keeps_engines(compose: Compose) -> None:
    services = compose()["services"]
    [device] = services["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "devices" not in services["triton-cpu"]["deploy"]["resources"]["reservations"]
    volumes = {name: {mount["source"]: mount["target"] for mount in services[name]["volumes"]} for name in services}
    cache = ENGINE_CACHE  # where `reco export --accelerator tensorrt` tells Triton to keep them
    assert volumes["triton-gpu"]["triton-cache"] == volumes["triton-cache"]["triton-cache"] == cache
    assert services["triton-cache"]["command"] == ["chown", services["triton-gpu"]["user"], cache]
    assert services["triton-gpu"]["depends_on"]["triton-cache"]["condition"] == "service_completed_successfully"


def test_without_triton_the_service_has_the_models_in_its_own_process(compose: Compose, root: Path) -> None:
    served, alone = (compose("cpu", "no-triton")["services"][name] for name in SERVICES)
    assert "args" not in served["build"]
    assert alone["build"] == {**served["build"], "args": {"VARIANT": "cpu"}}
    assert (root / "locks" / "image-cpu.txt").is_file()
    assert alone["image"] == f"{served['image']}-cpu"
    assert served["environment"] == {**alone["environment"], "RECO_TRITON_URL": "grpc://triton:8001"}
    assert set(alone["depends_on"]) == {"qdrant"}
    assert alone["networks"]["default"]["aliases"] == ["reco"]  # one name, whichever profile runs
    same = {"user", "ports", "volumes", "tmpfs", "deploy", "stop_grace_period", "command", "entrypoint"}
    assert {key: alone[key] for key in same} == {key: served[key] for key in same}


@pytest.mark.parametrize("name", SERVICES)
def test_the_plugins_settings_are_settings(compose: Compose, name: str) -> None:
    environment = compose()["services"][name]["environment"]
    assert set(environment) >= {"RECO_MODEL", "RECO_MEMORY"}
    service = {name for name in environment if name.startswith("RECO_SERVE_")}
    assert {name.removeprefix("RECO_SERVE_").lower() for name in service} <= set(ServeSettings.model_fields)
    others = {name: value for name, value in environment.items() if name not in service}
    load_settings(**{name.removeprefix("RECO_").lower(): value for name, value in others.items()})


@pytest.mark.parametrize("set_key", [None, "s3cret"])
def test_one_variable_is_the_key_on_both_sides(compose: Compose, monkeypatch: Any, set_key: str | None) -> None:
    monkeypatch.delenv("RECO_MEMORY_API_KEY", raising=False)
    if set_key:
        monkeypatch.setenv("RECO_MEMORY_API_KEY", set_key)
    services = compose()["services"]
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] == (set_key or "")
    for name in SERVICES:
        assert services[name]["environment"]["RECO_MEMORY_API_KEY"] == set_key


def test_qdrant_is_published_with_a_key_only(compose: Compose, run: Any, root: Path, monkeypatch: Any) -> None:
    assert "ports" not in compose()["services"]["qdrant"]
    words = ("--file", "docker-compose.yml", "--file", "deploy/qdrant-ports.yml", "--profile", "*", "config")
    for key in (None, ""):
        monkeypatch.delenv("RECO_MEMORY_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("RECO_MEMORY_API_KEY", key)
        refused = run("docker-compose", *words, cwd=root)
        assert refused.returncode != 0
        assert "RECO_MEMORY_API_KEY=$(openssl rand -hex 32)" in refused.stderr
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    services = json.loads(run("docker-compose", *words, "--format", "json", cwd=root).stdout)["services"]
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] == "s3cret"
    assert {(port["host_ip"], port["target"]) for port in services["qdrant"]["ports"]} == {
        ("127.0.0.1", 6333),
        ("127.0.0.1", 6334),
    }
    assert services["reco"]["environment"]["RECO_MEMORY_API_KEY"] == "s3cret"


@pytest.mark.parametrize(("more", "known"), [(None, set()), ("shop.example", {"shop.example"})])
def test_a_page_of_a_foreign_name_is_refused(
    compose: Compose, reco: Reco, monkeypatch: Any, more: str | None, known: set[str]
) -> None:
    monkeypatch.delenv("RECO_SERVE_ALLOWED_HOSTS", raising=False)
    if more:
        monkeypatch.setenv("RECO_SERVE_ALLOWED_HOSTS", more)
    for name in SERVICES:
        environment = compose()["services"][name]["environment"]
        settings = ServeSettings.model_validate({"allowed_hosts": environment["RECO_SERVE_ALLOWED_HOSTS"]})
        client = TestClient(create_app(settings, reco, settings.allowed_hosts))
        for host in {"localhost:8080", "127.0.0.1:8080", "reco:8080", "reco-no-triton:8080"} | known:
            assert client.get("/livez", headers={"host": host}).status_code == 200, host
        for host in {"rebind.example", "shop.example"} - known:
            assert client.get("/v1/models", headers={"host": host}).status_code == 403, host


@contextmanager
def _server(status: int, path: str) -> Iterator[int]:
    """A port of 127.0.0.1 that answers one path with a status and all others with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("service", "tool", "port", "path"),
    [("qdrant", "bash", "6333", "/readyz"), ("triton-cpu", "curl", "8000", "/v2/health/ready")],
)
def test_a_probe_tells_ready_from_not(compose: Compose, service: str, tool: str, port: str, path: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here; the image has it")
    kind, *command = compose()["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy(at: int) -> bool:
        words = [word.replace("$$", "$").replace(port, str(at)) for word in command]
        return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0

    with _server(200, path) as at:
        assert healthy(at)
    assert not healthy(at), "nobody listens any more"
    for status in (503, 404):
        with _server(status, path) as at:
            assert not healthy(at), status
