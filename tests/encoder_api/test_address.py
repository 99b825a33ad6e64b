"""Addresses of APIs: what they say, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reco_plugin.encoder_api import is_address, parse_address
from reco_plugin.encoder_api.dialects import DIALECTS
from reco_plugin.errors import ConfigError

KNOWN = {
    "https://api.openai.com/v1?model=text-embedding-3-small": "openai",
    "https://api.jina.ai/v1?model=jina-clip-v2": "jina",
    "https://api.cohere.com?model=embed-v4.0": "cohere",
    "http://shop:8080/v2/embed?model=m": "cohere",
    "reco+http://shop:8080": "reco",
    "openai+http://[::1]:8000/v1?model=m": "openai",
    "openai+http://vllm:8000/v1?model=openai/clip-vit-large&dimensions=256&images=messages&parallel=8": "openai",
}
WRONG = {
    "http://shop:8080": r"which API it speaks is not known. Write it before the address, as in openai\+http://shop:8080",
    "opeani+http://shop?model=m": "'opeani' is no dialect: did you mean 'openai'",
    "https://api.jina.ai/v1": r"name the model, as in https://api.jina.ai/v1\?model=NAME",
    "https://k:hush@api.jina.ai/v1?model=m": "no key belongs into the address",
    "https://api.jina.ai/v1?model=m&api_key=hush": r"no key belongs .*\(api_key\): set RECO_ENCODER_KEY",
    "https://api.jina.ai/v1?model=m&modle=m": "has no 'modle': did you mean 'model'",
    "https://api.jina.ai/v1?model=m&batch=0": "batch='0' of the encoder cannot be used: .* or equal to 1",
    "openai+http://h?model=m&images=yes": "images='yes' of the encoder cannot be used: .*'object'",
    "openai+http://?model=m": "names no host",
    "openai+http://h:99999/v1?model=m": "no port that is a number in 1-65535",
    "https://api.jina.ai/v1?model=m&api-key=hush": r"options .* cannot be read: .* RECO_ENCODER_KEY",
    "reco+https://h?hush": "options .* cannot be read",
}


@pytest.mark.parametrize(("text", "dialect"), KNOWN.items())
def test_the_dialect_is_said_or_told_by_host_or_path(text: str, dialect: str) -> None:
    address = parse_address(text)
    assert address.dialect == dialect
    assert parse_address(str(address)) == address
    assert parse_address(Path(text)) == address, "a folder's place may hold an address"


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_what_is_wrong_is_named_without_its_key(text: str, words: str) -> None:
    assert is_address(text)
    with pytest.raises(ConfigError, match=words) as raised:
        parse_address(text)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("openai+http://embeddings?model=m", "http://embeddings/v1/embeddings"),
        ("openai+http://embeddings/embeddings?model=m", "http://embeddings/embeddings"),
    ],
)
def test_a_host_that_is_called_like_the_route_is_no_route(text: str, url: str) -> None:
    address = parse_address(text)
    assert DIALECTS[address.dialect].path(address) == url


def test_the_providers_key_goes_to_its_host_in_any_dialect_and_encrypted() -> None:
    def variables(text: str) -> tuple[str, ...]:
        return parse_address(text).key_variables

    assert variables("openai+https://api.jina.ai/v1?model=jina-embeddings-v3") == ("JINA_API_KEY",)
    assert variables("jina+https://elsewhere.org/v1?model=m") == ()
    assert variables("http://api.jina.ai/v1?model=m") == ()


def test_a_folder_is_no_address() -> None:
    assert not any(map(is_address, ("triton_models", "/srv/models", Path("C:/models"), "a+b", "grpc://h:1")))
