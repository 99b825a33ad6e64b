"""``triton_url`` and what goes with it."""

from __future__ import annotations

import pytest

from reco_plugin.encoders.runtimes.triton_address import address_of
from reco_plugin.errors import ConfigError
from reco_plugin.settings import load_settings

pytestmark = pytest.mark.triton

SECRET = "Bearer sk-very-secret-4711"


@pytest.mark.parametrize(
    ("url", "tls", "authority"),
    [
        ("grpc://localhost", False, "localhost:8001"),
        ("grpcs://triton.shop:443", True, "triton.shop:443"),
        ("grpc://[::1]:9001", False, "[::1]:9001"),
    ],
)
def test_a_url_says_place_and_encryption(url, tls, authority):
    address = address_of(load_settings(triton_url=url))
    assert (address.tls, address.authority) == (tls, authority)


@pytest.mark.parametrize(
    "url",
    ["localhost:8001", "http://host", "grpc://host:port", "grpc://host/v2"],
)
def test_what_is_no_such_url_is_named_with_the_right_form(url):
    with pytest.raises(ConfigError, match=r"triton_url.*grpc://host:8001") as caught:
        address_of(load_settings(triton_url=url))
    assert url in str(caught.value)


def test_a_wrong_header_or_a_password_in_the_url_is_not_shown():
    with pytest.raises(ConfigError, match="triton_headers") as caught:
        load_settings(triton_headers={"authorization": [SECRET]})
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="contains a user or a password") as caught:
        address_of(load_settings(triton_url="grpc://me:sesame@host"))
    assert "sesame" not in str(caught.value)
