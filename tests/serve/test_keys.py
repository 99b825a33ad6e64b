"""Keys and their rights: of the settings, of a file that is read again, and of the user who serves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from reco_plugin import Reco
from reco_plugin.errors import ConfigError
from reco_plugin.serve.auth import Keys, Right
from reco_plugin.serve.failures import Refused
from reco_plugin.serve.logs import LOGGER
from reco_plugin.serve.service_settings import ServeSettings, load_serve_settings

from .conftest import ADMIN

TEXT = "a small red circle"
FILE = """
[shop]
key = "shop-key-1"
rights = ["embed"]
[curator]
key = "curator-1"
rights = ["embed", "read", "write"]
[prometheus]
key = "metrics-1"
rights = ["metrics"]
"""
PAIR = {"pairs": [{"id": "x", "text_vector": [1.0] + [0.0] * 127, "image_vector": [1.0] + [0.0] * 127}]}
CALLS = {
    "embed": ("POST", "/v1/embeddings", {"input": TEXT}),
    "read": ("POST", "/v1/explain", {"input": [{"text": TEXT}]}),
    "page": ("POST", "/page/compare", {"input": {"text": TEXT}}),
    "list": ("GET", "/v1/memory/pairs", None),
    "search": ("POST", "/v1/memory/search", {"text": TEXT}),
    "write": ("POST", "/v1/memory/pairs", PAIR),
    "metrics": ("GET", "/metrics", None),
}


def checked(keys: Keys, right: Right, headers: dict[bytes, bytes]) -> str:
    return keys.check(right, headers).name


def statuses(client: Any, key: str | None) -> dict[str, int]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {
        name: client.request(method, path, json=body, headers=headers).status_code
        for name, (method, path, body) in CALLS.items()
    }


def expected(*, embed: int, read: int, write: int, metrics: int = 200) -> dict[str, int]:
    return {"embed": embed, "read": read, "page": read, "list": read, "search": read, "write": write} | {
        "metrics": metrics
    }


@pytest.mark.parametrize(
    ("settings", "stranger", "caller", "admin"),
    [
        ({"admin_key": None}, (200, 200, 403), (200, 200, 401), (200, 200, 401)),
        ({"admin_key": ADMIN}, (200, 401, 401), (200, 401, 401), (200, 200, 200)),
        ({"admin_key": ADMIN, "api_keys": ["caller"]}, (401, 401, 401), (200, 200, 403), (200, 200, 200)),
        ({"admin_key": None, "api_keys": ["caller"]}, (401, 401, 403), (200, 200, 403), (401, 401, 401)),
    ],
)
def test_the_keys_of_the_settings(
    filled: Reco, served: Any, settings: dict[str, Any], stranger: Any, caller: Any, admin: Any
) -> None:
    with served(filled, page=True, **settings) as client:
        for key, (embed, read, write) in ((None, stranger), ("caller", caller), (ADMIN, admin)):
            assert statuses(client, key) == expected(embed=embed, read=read, write=write), key
        assert client.post("/v1/memory/pairs", content=b"{").status_code in (401, 403), "before the body is read"
        assert client.get("/").status_code == client.get("/page/files/app.js").status_code == 200


def test_a_file_gives_each_key_a_name_and_rights(filled: Reco, served: Any, tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(FILE)
    with served(filled, page=True, keys_file=file, admin_key=None) as client, caplog.at_level(logging.INFO, LOGGER):
        assert statuses(client, None) == expected(embed=401, read=401, write=401, metrics=401)
        assert statuses(client, "shop-key-1") == expected(embed=200, read=403, write=403, metrics=403)
        assert statuses(client, "curator-1") == expected(embed=200, read=200, write=200, metrics=403)
        assert statuses(client, "metrics-1") == expected(embed=403, read=403, write=403)
        headers = {"authorization": "Bearer shop-key-1"}
        error = client.post("/v1/explain", json={"input": [{"text": TEXT}]}, headers=headers).json()["error"]
        assert (error["code"], error["message"]) == (
            "right_missing",
            "the key 'shop' lacks the right read: it has embed",
        )
        wrong = client.get("/v1/models", headers={"authorization": "Bearer other-key"}).json()["error"]
        assert wrong["code"] == "key_wrong"
        lines = [vars(record) for record in caplog.records if record.getMessage() == "request"]
        assert {line["key"] for line in lines if "key" in line} == {None, "shop", "curator"}
        assert {"key_missing", "right_missing"} <= {line.get("code") for line in lines}
        assert all(line["client"] == "testclient" for line in lines)
        shown = client.get("/metrics", headers={"authorization": "Bearer metrics-1"}).text
        assert 'reco_http_refusals_total{code="key_wrong"} 1.0' in shown


def test_a_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(FILE)
    keys = Keys(ServeSettings(keys_file=file))

    def name(key: bytes) -> str | None:
        try:
            return checked(keys, "embed", {b"authorization": b"Bearer " + key})
        except Refused as refused:
            return refused.failure.code

    assert (name(b"shop-key-1"), name(b"shop-key-2")) == ("shop", "key_wrong")
    (tmp_path / "new").write_text(FILE.replace("shop-key-1", "shop-key-2"))
    (tmp_path / "new").replace(file)
    assert (name(b"shop-key-1"), name(b"shop-key-2")) == ("key_wrong", "shop")
    file.write_text("[shop\n")
    assert name(b"shop-key-2") == "shop"
    assert "the keys stay as they were" in caplog.text
    file.unlink()
    assert name(b"shop-key-2") == "shop"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("[a", "cannot be read"),
        ('[a]\nkey = "12345678"\nrights = ["all"]', r"a\.rights"),
        ('[a]\nkey = "s3cret"\nrights = ["embed"]', r"a\.key"),
        ('[a]\nkey = "         "\nrights = ["embed"]', r"a\.key"),
        ('[a]\nkey = "s3cret-1"\nrights = ["embed"]\n[b]\nkey = "s3cret-1"\nrights = ["read"]', "a key twice"),
    ],
)
def test_a_bad_file_is_refused_and_its_keys_are_not_shown(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigError, match=why) as refused:
        Keys(ServeSettings(keys_file=tmp_path / "keys.toml"))
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(ServeSettings(api_keys=["s3cret"], admin_key="s3cret"))


def test_a_key_may_be_of_any_alphabet() -> None:
    keys = Keys(ServeSettings(api_keys=["schlüssel"]), "token-of-this-machine")
    assert checked(keys, "read", {b"api-key": "schlüssel".encode()}) == "api_keys[0]"
    assert checked(keys, "write", {b"authorization": b"Bearer token-of-this-machine"}) == "this machine"
    for header in (b"Basic: k", b"Bearer", b""):
        with pytest.raises(Refused):
            keys.check("embed", {b"authorization": header})


@pytest.mark.parametrize(("line", "name"), [('admin_key = ""', "admin_key"), ('api_keys = ["k", " "]', r"api_keys\.1")])
def test_a_blank_key_is_refused(line: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reco.toml").write_text(f"[serve]\n{line}\n")
    with pytest.raises(ConfigError, match=name):
        load_serve_settings()


@pytest.mark.parametrize("header", [b"authorization", b"api-key", b"x-api-key"])
def test_a_blank_credential_is_none(header: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Keys(ServeSettings(admin_key="k")).check("write", {header: b"Bearer " if header == b"authorization" else b" "})
    assert refused.value.failure.code == "key_missing"
