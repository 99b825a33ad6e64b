"""The OpenAPI document as a file: ``python -m benchmarks.openapi > docs/openapi.json``."""

from __future__ import annotations

import json
import sys

from fastapi import FastAPI

from reco_plugin import Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings


def document(app: FastAPI) -> str:
    """Format the document of an application, which does not depend on settings or model."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Print the document."""
    with Reco.open(memory=":memory:") as reco:
        sys.stdout.write(document(create_app(ServeSettings(page=False), reco)))


if __name__ == "__main__":
    main()
