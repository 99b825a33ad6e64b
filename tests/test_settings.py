"""Settings: three places that say the same, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from reco_plugin.errors import ConfigError
from reco_plugin.serve.service_settings import ServeSettings, load_serve_settings
from reco_plugin.settings import (
    PREFIX,
    SECRET,
    MemoryOptions,
    Settings,
    _note_unknown,
    load_settings,
    secrets_of,
    sources,
)

KEY = "sk-very-secret-4711"
SAID = {  # setting -> as an argument, as a variable, in reco.toml
    "model": ("my/model", "my/model", '"my/model"'),
    "memory": ("my/memory", "my/memory", '"my/memory"'),
    "memory_api_key": (KEY, KEY, f'"{KEY}"'),
    "index_user": ("reader", "reader", '"reader"'),
    "index_password": (KEY, KEY, f'"{KEY}"'),
    "index_api_key": (KEY, KEY, f'"{KEY}"'),
    "memory_collection": ("shop", "shop", '"shop"'),
    "memory_options": (MemoryOptions(search_ef=64), '{"search_ef": 64}', "{ search_ef = 64 }"),
    "provider": ("cuda", "cuda", '"cuda"'),
    "threads": (3, "3", "3"),
    "provider_options": ({"device_id": "1"}, '{"device_id": "1"}', '{ device_id = "1" }'),
    "presence": (0.7, "0.7", "0.7"),
    "words": (False, "false", "false"),
    "coverage": (0.25, "0.25", "0.25"),
    "fuser": ("paper", "paper", '"paper"'),
    "k": (7, "7", "7"),
    "gate": (False, "false", "false"),
    "target": ("text", "text", '"text"'),
    "on_memory_failure": ("fail", "fail", '"fail"'),
    "memory_timeout_s": (0.5, "0.5", "0.5"),
    "breaker_failures": (2, "2", "2"),
    "breaker_retry_s": (1.5, "1.5", "1.5"),
    "triton_url": ("grpc://triton:8001", "grpc://triton:8001", '"grpc://triton:8001"'),
    "triton_timeout_s": (1.5, "1.5", "1.5"),
    "triton_ca": ("ca.pem", "ca.pem", '"ca.pem"'),
    "triton_headers": ({"authorization": KEY}, f'{{"authorization": "{KEY}"}}', f'{{ authorization = "{KEY}" }}'),
    "encoder_key": (KEY, KEY, f'"{KEY}"'),
    "encoder_timeout_s": (1.5, "1.5", "1.5"),
    "encoder_patience_s": (1.5, "1.5", "1.5"),
    "batch_size": (9, "9", "9"),
    "batch_callers": (False, "false", "false"),
    "max_pixels": (1000, "1000", "1000"),
}
WRONG = {  # setting -> unusable value
    "k": 0,
    "provider": "gpu",
    "gate": "perhaps",
    "presence": 70,
    "breaker_retry_s": "inf",
    "triton_timeout_s": "nan",
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working directory, and no variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECO_THREADS")
    return tmp_path


def write(place: Path, text: str) -> None:
    (place / "reco.toml").write_text(text)


def plain(value: Any) -> Any:
    """A value as it was given: paths as text, keys in clear."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize("but", ["model", "encoder"])  # which cannot be given together
def test_argument_variable_and_file_say_the_same(but, place, monkeypatch):
    assert SAID.keys() == Settings.model_fields.keys()
    given = {name: said for name, said in SAID.items() if name != but}
    by_argument = load_settings(**{name: argument for name, (argument, _, _) in given.items()})
    with monkeypatch.context() as patch:
        for name, (_, variable, _) in given.items():
            patch.setenv(PREFIX + name.upper(), variable)
        by_variable = load_settings()
    write(place, "".join(f"{name} = {line}\n" for name, (_, _, line) in given.items()))
    by_file = load_settings()
    for name, (argument, _, _) in given.items():
        assert getattr(by_argument, name) == getattr(by_variable, name) == getattr(by_file, name), name
        assert plain(getattr(by_file, name)) == argument != plain(Settings.model_fields[name].default), name


def test_an_empty_variable_counts_as_not_set(place, monkeypatch, recwarn):
    write(place, "k = 7\n[serve]\nport = 81\n")
    for name in [*Settings.model_fields, "memory_options__search_ef", "nonsense"]:
        monkeypatch.setenv(PREFIX + name.upper(), "")
    for name in ServeSettings.model_fields:
        monkeypatch.setenv(f"{PREFIX}SERVE_{name.upper()}", "")
    settings, serving = load_settings(), load_serve_settings()
    named = [Path(each).name for each in sources()]
    for name in [each for each in os.environ if each.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    assert (settings, serving) == (load_settings(), load_serve_settings())
    assert (settings.k, serving.port, named) == (7, 81, ["reco.toml"])
    assert not recwarn


SHOP = "grpc://host:6334?collection=shop&search_ef=6&exact=true"


@pytest.mark.parametrize("way", ["argument", "variable", "file"])
def test_the_address_of_a_memory_holds_its_collection_and_options(way, place, monkeypatch):
    if way == "variable":
        monkeypatch.setenv("RECO_MEMORY", SHOP)
    elif way == "file":
        write(place, f'memory = "{SHOP}"\nk = 3\n')
    found = load_settings(memory=SHOP) if way == "argument" else load_settings()
    assert (found.memory, found.memory_collection) == ("grpc://host:6334", "shop")
    assert found.memory_options == MemoryOptions(search_ef=6, exact=True)
    assert load_settings(memory="./here?search_ef=9").memory_options == MemoryOptions(search_ef=9)


def test_what_an_address_says_is_of_that_memory_alone_and_counts_as_its_source(place, monkeypatch):
    def said(**given: Any) -> tuple[str, str, Any]:
        found = load_settings(**given)
        return found.memory, found.memory_collection, found.memory_options.model_dump(exclude_unset=True)

    write(place, 'memory = "grpc://file?collection=of_file&timeout_s=4"\n')
    monkeypatch.setenv("RECO_MEMORY", "grpc://env?collection=of_env&search_ef=9")
    monkeypatch.setenv("RECO_MEMORY_OPTIONS__REFRESH_S", "7")
    assert said() == ("grpc://env", "of_env", {"search_ef": 9, "refresh_s": 7})
    assert said(memory="grpc://flag") == ("grpc://flag", "reco", {"refresh_s": 7})
    assert said(memory="grpc://flag?collection=x", memory_collection="x", memory_options={"timeout_s": 2}) == (
        "grpc://flag",
        "x",
        {"timeout_s": 2, "refresh_s": 7},
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("grpc://h?colection=x", r"has no 'colection': did you mean 'collection'\?"),
        ("grpc://h?search=6", r"has no 'search': did you mean 'search_ef'\?"),
        ("grpc://h?create_collection={}", r"has no 'create_collection'"),
        (f"grpc://h?collection=x&api_key={KEY}", r"no key belongs into the address .*'api_key'.*RECO_MEMORY_API_KEY"),
        ("grpc://h?timeout_s=no", "memory_options.timeout_s: .*'no'"),
        ("grpc://h?exact=1&exact=0", "option 'exact' is given twice"),
    ],
)
def test_an_address_that_cannot_be_is_told(address, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(memory=address, memory_collection="a", memory_options=MemoryOptions(search_ef=4))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("RECO_URL", "RECO_URL is no setting"), ("RECO_MEMROY", "RECO_MEMROY is no setting.*'memory'")]
)
def test_an_unknown_variable_is_a_warning_once(name, said, monkeypatch):
    _note_unknown.cache_clear()
    monkeypatch.setenv(name, KEY)
    with pytest.warns(UserWarning, match=said) as told:
        assert load_settings(k=4).k == 4
        load_settings()
    assert len(told) == 1 and KEY not in str(told[0].message)


@pytest.mark.parametrize("name", ["RECO_MEMORY_APIKEY", "RECO_SERVE_ADMINKEY"])
def test_a_misspelt_key_is_refused_since_nothing_would_be_protected(name, monkeypatch):
    monkeypatch.setenv(name, KEY)
    with pytest.raises(ConfigError, match=f"{name} is no setting") as caught:
        load_serve_settings() if "SERVE" in name else load_settings()
    assert KEY not in str(caught.value)


def test_an_unknown_word_in_the_file_is_refused(place):
    write(place, "neighbors = 5\n")
    with pytest.raises(ConfigError, match="neighbors is no setting"):
        load_settings()


@pytest.mark.parametrize("name", WRONG)
def test_an_unusable_value_is_named_with_its_setting(name, place, monkeypatch):
    value = WRONG[name]
    names_both = rf"{name}: .*{value}"
    with pytest.raises(ConfigError, match=names_both):
        load_settings(**{name: value})
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match=names_both):
        patch.setenv(PREFIX + name.upper(), str(value))
        load_settings()
    write(place, f"{name} = {value!r}\n")
    with pytest.raises(ConfigError, match=names_both):
        load_settings()


def test_a_variable_that_is_no_json_is_refused(monkeypatch):
    monkeypatch.setenv("RECO_PROVIDER_OPTIONS", "device_id=1")
    with pytest.raises(ConfigError, match=r"^RECO_PROVIDER_OPTIONS is no JSON: write a table as '\{.*\}'"):
        load_settings()


def test_every_key_is_known_as_one():
    assert secrets_of(ServeSettings) == {"api_keys", "admin_key"}
    for name in SECRET:
        with pytest.raises(ConfigError, match=f"^{name}") as caught:
            load_settings(**{name: [KEY]})
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("line", [f'memory_apikey = "{KEY}"', f'memory_api_key = ["{KEY}"]', f"memory_api_key = {KEY}"])
def test_a_key_that_is_wrong_in_the_file_shows_nowhere(line, place):
    write(place, line)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert KEY not in str(caught.value)
