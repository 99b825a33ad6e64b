"""docker-compose.yml as docker compose reads it; tests/stack starts it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.export.export_options import ENGINE_CACHE
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.settings import load_settings

pytestmark = pytest.mark.slow

Compose = Callable[..., dict[str, Any]]
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+[\w.-]*$")
SERVICES = ("reco", "reco-no-triton")


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("cpu", {"qdrant", "triton-cpu", "reco"}),
        ("gpu", {"qdrant", "triton-gpu", "reco"}),
        ("no-triton", {"qdrant", "reco-no-triton"}),
    ],
)
def test_a_profile_starts_one_triton_at_most(compose: Compose, profile: str, expected: set[str]) -> None:
    assert set(compose(profile)["services"]) == expected


def test_each_container_is_locked_in(compose: Compose) -> None:
    for name, service in compose()["services"].items():
        assert PINNED.match(service["image"]), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and int(service["user"].split(":")[0]) > 0, name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"], name
        assert "cpus" not in limits and "ulimits" not in service, f"{name} would not start where they cannot be had"
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert "healthcheck" in service or name in SERVICES, f"{name}: reco's is in the image"


def test_two_services_have_a_port_each(compose: Compose, monkeypatch: Any) -> None:
    def published() -> list[str]:
        return [compose()["services"][name]["ports"][0]["published"] for name in SERVICES]

    monkeypatch.delenv("SERVICE_PORTS", raising=False)
    assert published() == ["8080", "8080"]
    monkeypatch.setenv("SERVICE_PORTS", "8080-8081")
    assert published() == ["8080-8081", "8080-8081"]


def test_the_gpu_profile_reserves_a_gpu_and_keeps_engines(compose: Compose) -> None:
    gpu, cpu = (compose()["services"][f"triton-{name}"] for name in ("gpu", "cpu"))
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "devices" not in cpu["deploy"]["resources"]["reservations"]
    # where `reco model export --accelerator tensorrt` tells Triton to keep them
    assert {mount["source"]: mount["target"] for mount in gpu["volumes"]}["triton-engines"] == ENGINE_CACHE


def test_without_triton_the_service_differs_in_nothing_else(compose: Compose) -> None:
    served, alone = (compose("cpu", "no-triton")["services"][name] for name in SERVICES)
    assert alone["build"] == {**served["build"], "args": {"VARIANT": "cpu"}}
    assert alone["image"] == f"{served['image']}-cpu"
    assert served["environment"] == {**alone["environment"], "RECO_TRITON_URL": "grpc://triton:8001"}
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


def test_qdrant_is_published_with_a_key_only(compose: Compose, run: Any, root: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("RECO_MEMORY_API_KEY", raising=False)
    assert "ports" not in compose()["services"]["qdrant"]
    words = ("--file", "docker-compose.yml", "--file", "deploy/qdrant-ports.yml", "--profile", "*", "config")
    refused = run("docker-compose", *words, cwd=root)
    assert refused.returncode != 0 and "RECO_MEMORY_API_KEY=$(openssl rand -hex 32)" in refused.stderr
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    services = json.loads(run("docker-compose", *words, "--format", "json", cwd=root).stdout)["services"]
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] == "s3cret"
    assert {(port["host_ip"], port["target"]) for port in services["qdrant"]["ports"]} == {
        ("127.0.0.1", 6333),
        ("127.0.0.1", 6334),
    }
    assert all(services[name]["environment"]["RECO_MEMORY_API_KEY"] == "s3cret" for name in SERVICES)


def test_a_foreign_host_name_is_refused(compose: Compose, reco: Reco, monkeypatch: Any) -> None:
    monkeypatch.setenv("RECO_SERVE_ALLOWED_HOSTS", "shop.example")
    for name in SERVICES:
        environment = compose()["services"][name]["environment"]
        settings = ServeSettings.model_validate({"allowed_hosts": environment["RECO_SERVE_ALLOWED_HOSTS"]})
        client = TestClient(create_app(settings, reco, settings.allowed_hosts))
        for host in ("localhost:8080", "reco:8080", "shop.example"):
            assert client.get("/livez", headers={"host": host}).status_code == 200, host
        assert client.get("/v1/models", headers={"host": "rebind.example"}).status_code == 403
