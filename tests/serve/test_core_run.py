"""``reco serve`` as a process: settings from all three places, one clear line when it cannot start, a clean end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import typing

import httpx
import pytest
from live_service import serve_on_a_free_port, wait_until
from pydantic import SecretStr
from service_process import command, environment, process
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.cli.serve import serve_command
from reco_plugin.errors import ConfigError
from reco_plugin.memory.header import HEADER_NAME
from reco_plugin.serve.server import bind
from reco_plugin.serve.service_settings import ServeSettings, load_serve_settings
from reco_plugin.settings import load_settings

pytestmark = pytest.mark.slow

HIDDEN = {"api_keys", "admin_key"}


def test_it_serves_and_ends_cleanly(tmp_path, model, red_square):
    with process(tmp_path, model, "--threads", "1", RECO_SERVE_ADMIN_KEY="s3cret") as (running, url):
        with httpx.Client(base_url=url, headers={"authorization": "Bearer s3cret"}, timeout=60) as client:
            wait_until(lambda: running.poll() is not None or client.get("/readyz").status_code == 200)
            pair = {"id": "a", "text": "a red square", "image": red_square}
            assert client.post("/v1/memory/pairs", json={"pairs": [pair]}).json()["pairs"] == 1
        running.send_signal(signal.SIGTERM)
        log = [json.loads(line) for line in typing.cast(typing.IO[str], running.stderr)]
        assert running.wait(60) == 0
    assert {"/v1/memory/pairs"} == {line["path"] for line in log if line["message"] == "request"}
    assert all(line["request_id"] for line in log if line["message"] == "request")
    assert "s3cret" not in json.dumps(log)
    info = subprocess.run(
        [sys.executable, "-m", "reco_plugin", "memory", "info", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(info.stdout)["pairs"] == 1  # ./memory, where the other commands look


def test_while_an_api_that_encodes_is_down_callers_get_503_long_before_the_deadline(tmp_path, model):
    with (
        Reco.open(model) as local,
        serve_on_a_free_port(local) as (api, server),
        process(tmp_path, f"reco+{api}", "--deadline-s", "15") as (_, url),
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        wait_until(lambda: client.get("/readyz").status_code == 200)
        server.should_exit = True
        wait_until(lambda: not ask(client).is_success)
        refused = ask(client)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_server_unavailable")
    assert refused.headers["retry-after"]


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "clip", "input": "a red fox"})


@pytest.mark.parametrize("form", ["auto", "json"])
def test_on_a_terminal_it_says_where_the_playground_is(tmp_path, model, form):
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        command("--model", str(model), "--memory", ":memory:", "--port", "0", "--log-format", form),
        cwd=tmp_path,
        env=environment(),
        stderr=theirs,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours, encoding="utf-8", newline="") as terminal:
            lines: list[str] = []
            while not (lines and "ready" in lines[-1]):
                lines.append(terminal.readline().rstrip())
                if found := re.search(r"playground: (http://[^\"\s]+)", lines[-1]):
                    assert "playground" in httpx.get(found[1]).text
            started.send_signal(signal.SIGINT)
            assert started.wait(60) == 0
    finally:
        started.kill()
        started.wait()
    output = "\n".join(lines)
    assert "playground: http://127.0.0.1:" in output
    assert re.search(r"interface: http://127.0.0.1:\d+/openapi.json", output)
    assert ("uvicorn" in output) is ("{" in output) is (form == "json")


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        (["--threads", "0"], {}, "threads"),
        (["--aliases", "clip"], {}, "NAME=plain"),
        (["--aliases", "clip=both"], {}, "aliases"),
        (["--model", "nowhere"], {}, "no model at 'nowhere'"),
        (["--memory", "./catalog"], {}, "no memory at './catalog'. Check the location"),
        (
            [],
            {"RECO_MEMORY": "elsewhere"},
            "no memory at 'elsewhere'. Check the location",
        ),
        ([], {"RECO_TRITON_URL": "triton:8001"}, "triton_url 'triton:8001' is not of the form grpc://host:8001"),
        ([], {"RECO_TRITON_URL": "localhost"}, "triton_url 'localhost' is not of the form grpc://host:8001"),
    ],
)
def test_it_says_in_one_line_why_it_does_not_start(tmp_path, monkeypatch, model, flags, variables, message):
    """In this process, which ends before anything listens; the next test has one of its own."""
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / HEADER_NAME).touch()
    monkeypatch.chdir(tmp_path)
    for name, value in ({"RECO_MODEL": str(model)} | variables).items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["serve", "--port", "0", *flags], catch_exceptions=False)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["catalogue"]


def test_a_port_in_use_is_said_in_one_line_before_a_model_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        flags = ["--port", port, "--model", "nowhere"]
        done = subprocess.run(
            command(*flags), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --port or --host\n"
    )


@pytest.mark.parametrize(
    ("host", "keys", "warned"), [("127.0.0.1", "", False), ("0.0.0.0", "", True), ("0.0.0.0", "secret", False)]
)
def test_an_address_that_others_reach_is_warned_of_while_no_key_is_set(tmp_path, model, host, keys, warned):
    started = subprocess.Popen(
        command("--model", str(model), "--memory", ":memory:", "--port", "0", "--host", host),
        cwd=tmp_path,
        env=environment(RECO_SERVE_API_KEYS=keys),
        stderr=subprocess.PIPE,
        text=True,
    )
    messages = []
    for line in typing.cast(typing.IO[str], started.stderr):
        messages.append(json.loads(line)["message"])
        if "listening on" in messages[-1]:
            break
    started.kill()
    started.communicate()
    assert "listening on" in messages[-1]
    assert any("set keys_file" in line for line in messages) is warned


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("203.0.113.7", r"cannot listen on 203.0.113.7:8080: .*Choose another --port or --host"),
        ("2001:db8::7", r"cannot listen on \[2001:db8::7\]:8080: .*Choose another --port or --host"),
        ("no host", r"cannot listen on no host:8080: .*Choose another --port or --host"),
    ],
)
def test_an_address_of_another_machine_is_refused(host, message):
    with pytest.raises(ConfigError, match=message):
        bind(ServeSettings(host=host))


def test_every_setting_but_the_keys_is_a_flag():
    import inspect

    flags = set(inspect.signature(serve_command).parameters)
    assert flags == {"model", "memory", *ServeSettings.model_fields} - HIDDEN
    assert {
        name for name, field in ServeSettings.model_fields.items() if SecretStr in _kinds(field.annotation)
    } == HIDDEN


def _kinds(annotation: object) -> set[object]:
    return {annotation}.union(*map(_kinds, typing.get_args(annotation)))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(place, monkeypatch):
    (place / "reco.toml").write_text('k = 3\n[serve]\nport = 1\nqueue = 1\nthreads = 1\naliases = { a = "refined" }\n')
    monkeypatch.setenv("RECO_SERVE_PORT", "2")
    monkeypatch.setenv("RECO_SERVE_QUEUE", "2")
    monkeypatch.setenv("RECO_SERVE_API_KEYS", "one, two,")
    settings = load_serve_settings(port=3)
    assert (settings.port, settings.queue, settings.threads) == (3, 2, 1)
    assert settings.aliases == {"a": "refined"}
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert load_settings().k == 3  # whose file and variables are the same
    for written, keys in (('["one", "two"]', ["one", "two"]), ("[one, two]", ["[one", "two]"]), ("[]", [])):
        monkeypatch.setenv("RECO_SERVE_API_KEYS", written)  # JSON, or else words
        assert [key.get_secret_value() for key in load_serve_settings().api_keys] == keys


def test_a_model_without_a_name_is_refused(place, monkeypatch):
    monkeypatch.setenv("RECO_SERVE_ALIASES", "{}")
    with pytest.raises(ConfigError, match="aliases"):
        load_serve_settings()


def test_unknown_words_are_refused_and_keys_are_not_shown(place, monkeypatch):
    with pytest.raises(ConfigError, match="prot is no setting"):
        load_serve_settings(prot=1)
    monkeypatch.setenv("RECO_SERVE_PROT", "1")
    with pytest.warns(UserWarning, match="RECO_SERVE_PROT is no setting"):
        load_serve_settings()
    monkeypatch.delenv("RECO_SERVE_PROT")
    for line in (
        'admin_key = ["sk-secret"]',
        'api_keys = [["sk-secret"]]',
        'admin_kee = "sk-secret"',
        "admin_key = 4711",
    ):
        (place / "reco.toml").write_text(f"[serve]\n{line}\n")
        with pytest.raises(ConfigError) as refused:
            load_serve_settings()
        assert not re.search("sk-secret|4711", str(refused.value))
    (place / "reco.toml").write_text("serve = 3\n")
    with pytest.raises(ConfigError, match=r"must be a table, \[serve\]"):
        load_serve_settings()
