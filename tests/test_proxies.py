"""Proxies and certificates of the environment: who asks through a proxy says so; what cannot be used is no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reco_plugin.client import Client
from reco_plugin.encoders.api_client import ApiClient
from reco_plugin.encoders.api_dialects import parse_address
from reco_plugin.errors import ConfigError, RecoError
from reco_plugin.proxies import proxy_of, usable_environment
from reco_plugin.settings import load_settings
from reco_plugin.sources.indexes import base, open_index

NOBODY = "127.0.0.1:9"  # port of discard, where nothing listens


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without those of the machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(base, "WAITS", (0.0,))


def encode(url: str) -> Any:
    """Ask an encoder that is an API, once."""
    settings = load_settings(encoder_patience_s=0.01, encoder_key="any")
    return ApiClient(parse_address(f"openai+{url}/v1?model=clip"), settings).embed([b"a fox"], "text")


ASK: dict[str, Callable[[str], Any]] = {
    "client": lambda url: Client(url).embed_texts(["a fox"]),
    "opensearch": lambda url: open_index(f"opensearch:{url.partition(':')[2]}/shop").describe(),
    "qdrant": lambda url: open_index(f"{url}?collection=shop&vector=clip").describe(),
    "encoder": encode,
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_who_cannot_reach_a_service_names_the_proxy_before_it(monkeypatch, ask):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@{NOBODY}")
    with pytest.raises(RecoError) as asked:
        ask("http://shop.invalid:6333")
    assert f"(asked through the proxy {NOBODY} of the environment; hosts in NO_PROXY" in str(asked.value)
    assert "secret" not in str(asked.value)
    monkeypatch.setenv("NO_PROXY", "shop.invalid")
    with pytest.raises(RecoError) as directly:
        ask("http://shop.invalid:6333")
    assert "proxy" not in str(directly.value)


def test_a_proxy_that_cannot_be_used_is_an_error_of_the_configuration(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://h:1")
    with pytest.raises(ConfigError, match=r"a proxy of the environment .* cannot be used: "):
        ASK["client"]("http://127.0.0.1:9")


def test_an_error_that_no_proxy_made_stays_what_it_is(monkeypatch):
    with pytest.raises(ValueError, match="of something else"), usable_environment():
        raise ValueError("of something else")
    monkeypatch.setenv("HTTP_PROXY", f"http://{NOBODY}")
    with pytest.raises(KeyError, match="of something else"), usable_environment():
        raise KeyError("of something else")


def test_certificates_that_cannot_be_read_are_an_error_of_the_configuration(monkeypatch, tmp_path):
    for name, content in (("absent.pem", None), ("bad.pem", "no certificate")):
        if content:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(ConfigError, match="certificates that SSL_CERT_FILE names cannot be read: "):
            ASK["client"]("https://127.0.0.1:9")


@pytest.mark.parametrize(
    ("variables", "url", "named"),
    [
        ({"https_proxy": "http://p:1"}, "https://reco:8080/x", "p:1"),
        ({"https_proxy": "http://p:1"}, "grpcs://reco:6334", "p:1"),
        ({"https_proxy": "http://p:1"}, "http://reco", ""),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost,.shop.example"}, "http://reco.shop.example", ""),
    ],
)
def test_the_proxy_of_an_address(monkeypatch, variables, url, named):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (f"the proxy {named} of" in proxy_of(url)) if named else proxy_of(url) == ""
