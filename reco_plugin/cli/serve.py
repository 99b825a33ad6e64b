"""``reco serve``: start the HTTP service."""

from __future__ import annotations

from ..errors import ConfigError, need
from ..serve.service_settings import ServeSettings, load_serve_settings
from .shared import Given, OpenOptions, reco_of, take_flags, takes

_PATIENCE_S = 1.0  # with an API that encodes; callers of the service repeat a request after 503


@takes(OpenOptions, ServeSettings)
def serve_command(*, given: Given) -> None:
    """Serve the embedding APIs of OpenAI and others, /v1/refine, the memory, health and metrics over HTTP.

    Every flag can also be a line below [serve] in reco.toml, or a variable: RECO_SERVE_PORT=9000. Keys cannot be
    flags, since other users of a machine can see those: RECO_SERVE_API_KEYS=key1,key2 and RECO_SERVE_ADMIN_KEY.
    """
    for module in ("fastapi", "uvicorn"):
        need(module, "reco serve", "serve")
    from ..serve.logs import log_to_stderr
    from ..serve.server import bind, run

    place = take_flags(OpenOptions, given)
    if "aliases" in given:
        given["aliases"] = dict(map(_parse_alias, given["aliases"]))
    settings, opened = load_serve_settings(**given), place.served
    with (
        bind(settings) as listener,
        log_to_stderr(settings.log_format, settings.log_level),  # opening the memory may warn
        reco_of(opened, encoder_patience_s=min(opened.encoder_patience_s, _PATIENCE_S)) as reco,
    ):
        run(settings, reco, listener)


def _parse_alias(word: str) -> tuple[str, str]:
    name, found, meaning = word.partition("=")
    if not found:
        raise ConfigError(f"--aliases {word!r} is not NAME=plain or NAME=refined")
    return name, meaning
