"""What tests of the stack stand on, where no docker engine runs: the files as compose reads them, and the helpers."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from compose_stack import FILES, ROOT, UP, WAYS, Stack, add_drawings, add_vectors, embed, held, refined, until, vector
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.settings import ServeSettings

COMPOSE = Path(sys.executable).parent / "docker-compose"
KEYS = {"RECO_MEMORY_API_KEY": "stack-memory-key", "RECO_SERVE_ADMIN_KEY": "stack-admin-key"}


def compose(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMPOSE, *words], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def services(*files: Path) -> dict[str, Any]:
    named = [word for file in files for word in ("-f", str(file))]
    done = compose(*named, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


def test_it_is_the_projects_own_with_keys_and_one_free_port() -> None:
    own, tried = services(FILES[0]), services(*FILES)
    for name in ("reco", "reco-no-triton"):
        [port] = tried[name].pop("ports")
        assert (port["host_ip"], port["target"]) == ("127.0.0.1", 8080)
        assert port.get("published", "0") == "0"
        del own[name]["ports"]
        own[name]["environment"] |= KEYS
    own["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] = KEYS["RECO_MEMORY_API_KEY"]
    del own["triton-cpu"]["ports"]
    assert tried == own


@pytest.mark.parametrize("words", [*UP, *itertools.chain.from_iterable(WAYS.values())])
def test_compose_knows_the_commands(words: tuple[str, ...]) -> None:
    assert compose(*words, "--help").returncode == 0
    assert compose(*words, "--not-known", "--help").returncode != 0


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a docker was told that only writes it down, a command on each line, and answers as docker does."""
    log, docker = tmp_path / "told", tmp_path / "docker"
    docker.write_text(
        f"""#!/bin/sh
echo "$*" >> {log}
case "$*" in
  *" --format json") echo '{{"Service": "qdrant", "Health": "healthy"}}'; echo '{{"Service": "reco", "Health": ""}}';;
  *" --quiet qdrant") echo 0a1b;;
  *" port reco 8080") echo 127.0.0.1:49153;;
  *" stop triton-cpu") echo "no such service" >&2; exit 1;;
esac
"""
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    yield log


@pytest.mark.parametrize("tests", ["memory/contract/test_memory_server.py", "stack/test_stack.py"])
def test_containers_that_do_not_start_are_taken_down_again(told: Path, tests: str) -> None:
    docker = told.with_name("docker")
    docker.write_text(docker.read_text().replace("esac", '  *" up "*) exit 1;;\nesac'))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 1 and "1 error" in done.stdout, done.stdout
    lines = told.read_text().splitlines()
    assert any(" up " in line for line in lines[:-1])
    assert lines[-1].endswith(" down -v")


def test_in_one_process_each_folders_containers_are_taken_down_by_its_own_file(told: Path) -> None:
    done = _run_with(
        told, "stack/test_stack.py", "*' up '*", "not started", "tests/memory/contract/test_memory_server.py"
    )
    assert done.returncode == 1, done.stdout
    lines = [line for line in told.read_text().splitlines() if "-alone" not in line]
    projects = {}
    for file in ("stack/docker-compose.yml", "memory/contract/docker-compose.yml"):
        [up], [down] = ([line for line in lines if file in line and word in line] for word in (" up ", " down -v"))
        projects[file] = {re.findall(r'-p "?([\w-]+)', line)[0] for line in (up, down)}
    assert [len(names) for names in projects.values()] == [1, 1], projects
    assert len(set.union(*projects.values())) == 2, projects


UNREACHED = "dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host"


@pytest.mark.parametrize("tests", ["memory/contract/test_memory_server.py", "stack/test_stack.py"])
@pytest.mark.parametrize(
    ("asked", "said", "reason"),
    [
        ("info", "Cannot connect to the Docker daemon", "no docker engine answers here"),
        ("compose version", "docker: 'compose' is not a docker command.", "docker has no compose here"),
        ("*' pull '*", UNREACHED, "images are missing here, and no registry can be reached: .*no such host"),
    ],
)
def test_without_engine_plugin_or_registry_tests_skip(
    told: Path, monkeypatch: pytest.MonkeyPatch, tests: str, asked: str, said: str, reason: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    done = _run_with(told, tests, asked, said)
    assert done.returncode == 0 and " skipped in " in done.stdout.splitlines()[-1], done.stdout
    assert re.search(f"SKIPPED.*{reason}", done.stdout), done.stdout
    lines = told.read_text().splitlines()
    assert not [line for line in lines if " up " in line]
    if "pull" in asked:
        assert lines[-1].endswith(" down -v")


@pytest.mark.parametrize(("said", "ci"), [(UNREACHED, "true"), ("manifest unknown", None)])
def test_images_that_are_not_had_fail_in_ci_and_where_there_is_no_such_image(
    told: Path, monkeypatch: pytest.MonkeyPatch, said: str, ci: str | None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", ci)
    done = _run_with(told, "stack/test_stack.py", "*' pull '*", said, "-x")
    assert done.returncode == 1 and "1 error" in done.stdout and said in done.stdout, done.stdout


def _run_with(told: Path, tests: str, asked: str, said: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run tests with a docker that answers what it is asked by an error."""
    docker = told.with_name("docker")
    pattern = asked if "*" in asked else f"'{asked}'"
    docker.write_text(docker.read_text().replace("esac", f'  {pattern}) echo "{said}" >&2; exit 1;;\nesac'))
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *more, f"tests/{tests}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


@pytest.mark.parametrize(
    ("way", "away", "back"),
    [
        ("stop", "stop qdrant", "start qdrant"),
        ("pause", "pause qdrant", "unpause qdrant"),
        ("kill", "kill --signal SIGKILL qdrant", "start qdrant"),
        ("cut", "network disconnect p_default 0a1b", "network connect --alias qdrant p_default 0a1b"),
    ],
)
def test_what_is_taken_away_comes_back(told: Path, way: str, away: str, back: str) -> None:
    stack = Stack("p", ["a.yml", "b.yml"])
    with pytest.raises(RuntimeError), stack.without("qdrant", way):
        assert told.read_text().splitlines()[-1].endswith(away)
        raise RuntimeError
    last = told.read_text().splitlines()[-1]
    assert last == (back if way == "cut" else f"compose -f a.yml -f b.yml --profile cpu -p p {back}")


def test_the_stack_is_read_from_what_docker_says(told: Path) -> None:
    stack = Stack("p")
    assert stack.health() == {"qdrant": "healthy", "reco": ""}
    with stack.client() as client:
        assert str(client.base_url) == "http://127.0.0.1:49153"
    with pytest.raises(AssertionError, match="no such service"), stack.without("triton-cpu", "stop"):
        pass
    stack.up()
    assert [line.split(" -p p ")[1].split()[0] for line in told.read_text().splitlines()[-3:]] == [
        "build",
        "pull",
        "up",
    ]
    assert stack.up_s is not None


def test_until() -> None:
    seen = iter([0, 0, 3])
    assert until(lambda: next(seen), 5, 0.001) == 3
    with pytest.raises(AssertionError, match=r"within 0.01 s, but \[\]"):
        until(list, 0.01, 0.001)


def test_the_service_is_asked_as_it_answers(reco: Reco, drawings: list[Pair]) -> None:
    with TestClient(create_app(ServeSettings(admin_key="stack-admin-key", page=False), reco)) as client:
        client.headers["authorization"] = "Bearer stack-admin-key"
        assert not refined(client)  # there is nothing in the memory
        add_drawings(client, drawings)
        assert refined(client)
        assert np.abs(vector(embed(client)) - vector(embed(client, "clip"))).max() > 0.001
        counted: list[int] = []
        ids = add_vectors(client, 3, counted.append, 0)
        assert counted == [1, 2, 3]
        assert sorted(held(client, [*ids, "not there"])) == sorted(ids)
        assert client.get("/v1/memory").json()["pairs"] == 27
        assert until(lambda: client.get("/readyz").status_code == 200, 60)
        assert client.get("/readyz").json() == {"status": "ready", "reasons": [], "degraded": []}


def test_a_pair_is_sent_until_it_is_acknowledged() -> None:
    answers = iter([503, 504, 200, 200, 400])

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [{"dimension": 4}]})
        return httpx.Response(next(answers))

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://reco") as client:
        assert add_vectors(client, 2, lambda _: None, 0) == ["p0", "p1"]
        with pytest.raises(httpx.HTTPStatusError):
            add_vectors(client, 1, lambda _: None, 0)
