"""Addresses of APIs: what they say, and what is wrong with them."""

from __future__ import annotations

import pytest

from reco_plugin.encoders.api_dialects import DIALECTS, is_address, parse_address
from reco_plugin.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "dialect", "route"),
    [
        ("https://api.openai.com/v1?model=m", "openai", "https://api.openai.com/v1/embeddings"),
        ("https://api.cohere.com?model=embed-v4.0", "cohere", "https://api.cohere.com/v2/embed"),
        ("reco+http://shop:8080", "reco", "http://shop:8080/v1/embeddings"),
        (
            "jina+http://[::1]:8000/v1?model=a/b&dimensions=256&images=0&parallel=8",
            "jina",
            "http://[::1]:8000/v1/embeddings",
        ),
    ],
)
def test_an_address_names_dialect_and_route(text: str, dialect: str, route: str) -> None:
    address = parse_address(text)
    assert (address.dialect, DIALECTS[address.dialect].url(address)) == (dialect, route)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://shop:8080", r"openai\+http://shop:8080"),
        ("https://api.jina.ai/v1", r"\?model=NAME"),
        ("https://k:hush@api.jina.ai/v1?model=m", "RECO_ENCODER_KEY"),
        ("https://api.jina.ai/v1?model=m&api-key=hush", "RECO_ENCODER_KEY"),
        ("https://api.jina.ai/v1?model=m&batch=0", "batch='0'"),
    ],
)
def test_what_is_wrong_is_named_without_its_key(text: str, words: str) -> None:
    assert is_address(text)
    with pytest.raises(ConfigError, match=words) as raised:
        parse_address(text)
    assert "hush" not in str(raised.value)


def test_a_folder_is_no_address() -> None:
    assert not any(map(is_address, ("triton_models", "/srv/models", "C:/models", "a+b", "grpc://h:1")))
