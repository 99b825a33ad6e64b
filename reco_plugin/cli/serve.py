"""``reco serve``: one process, one Reco, over HTTP. Its flags are the fields of the service's settings."""

from __future__ import annotations

from ..errors import ConfigError
from ..serve.settings import ServeSettings, load_serve_settings
from .errors import reports_errors
from .flags import Given, take_flags, takes
from .options import OpenOptions, memory_location

EXTRA = "serve"


@reports_errors
@takes(OpenOptions, ServeSettings)
def serve_command(*, given: Given) -> None:
    """Serve embeddings over HTTP: OpenAI's and other shapes, /v1/refine, the memory, health and metrics.

    Every flag can also be a line below [serve] in reco.toml, or a variable: RECO_SERVE_PORT=9000. Keys cannot be
    flags, since other users of a machine can see those: RECO_SERVE_API_KEYS=key1,key2 and RECO_SERVE_ADMIN_KEY.
    """
    from ..data.extras import need

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, "reco serve", EXTRA)
    from ..reco import Reco
    from ..serve.run import check_address, run

    place = take_flags(OpenOptions, given)
    if "aliases" in given:
        given["aliases"] = dict(map(_parse_alias, given["aliases"]))
    settings = load_serve_settings(**given)
    check_address(settings)
    with Reco.open(place.model, memory=memory_location(place.memory)) as reco:
        run(settings, reco)


def _parse_alias(word: str) -> tuple[str, str]:
    name, found, meaning = word.partition("=")
    if not found:
        raise ConfigError(f"--aliases {word!r} is not NAME=plain or NAME=refined")
    return name, meaning
