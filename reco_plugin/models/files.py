"""Where an encoder lies: a folder or a hub repository, as optimum, transformers.js or transformers write it.

::

    transformers.js   onnx/vision_model.onnx, onnx/text_model.onnx
    optimum           model.onnx with both towers, at the top or in onnx/
    transformers      model.safetensors, or pytorch_model.bin
    all of them       config.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, need
from ..files import in_home
from .options import AddOptions

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_HUB = "hf://"
_LAYOUTS = (
    ("transformers.js", "onnx/vision_model.onnx", "onnx/text_model.onnx"),
    ("transformers.js", "vision_model.onnx", "text_model.onnx"),
    ("optimum", "onnx/model.onnx", "onnx/model.onnx"),
    ("optimum", "model.onnx", "model.onnx"),
    ("transformers", "model.safetensors", "model.safetensors"),
    ("transformers", "model.safetensors.index.json", "model.safetensors.index.json"),
    ("transformers", "pytorch_model.bin", "pytorch_model.bin"),
)
"""Name, file of the image tower, file of the text tower; the first that is there is taken."""
_WEIGHTS = ["*.safetensors", "pytorch_model*.bin"]


@dataclass(frozen=True)
class Files:
    """The files of a model."""

    name: str  # of the encoder, readable
    layout: str
    image: Path
    text: Path
    tokenizer: Path
    preprocess: Path
    preprocessing: dict[str, Any]  # content of the latter
    config: dict[str, Any]  # config.json
    tokenizing: dict[str, Any]  # tokenizer_config.json with special_tokens_map.json

    @property
    def ready(self) -> bool:
        """Whether these are ONNX towers, and no checkpoint."""
        return self.image.suffix == ".onnx"


def find_files(source: str, options: AddOptions) -> Files:
    """Find the files of a model; of a repository, fetch them.

    Raises:
        ConfigError: no such place, no known layout, or a file is missing.
        DataError: the hub cannot be reached, or has no such repository; a file cannot be read.
    """
    folder, repository = in_home(source), source.removeprefix(_HUB)
    if folder.is_dir():
        names = {path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("onnx/*"))}
        layout, image, text = _layout(source, names)
    elif folder.exists() or not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{source} is neither a folder here nor a repository, as in org/name")
    else:
        hub: Any = need("huggingface_hub", f"reading {repository} from the hub", "import")
        names = set(_fetched(repository, lambda: hub.HfApi().list_repo_files(repository, revision=options.revision)))
        layout, image, text = _layout(repository, names)
        wanted = ["*.json", f"{image}*", f"{text}*", *(_WEIGHTS if layout == "transformers" else ())]
        folder = Path(
            _fetched(
                repository,
                lambda: hub.snapshot_download(repository, revision=options.revision, allow_patterns=wanted),
            )
        )
    tokenizer = folder / "tokenizer.json"
    kinds = [kind for kind in ("preprocessor_config.json", "processor_config.json") if kind in names]
    preprocess = folder / kinds[0] if kinds else None
    if preprocess is None or (layout != "transformers" and not tokenizer.is_file()):
        lacking = "preprocessor_config.json" if preprocess is None else tokenizer.name
        raise ConfigError(f"{source} has no {lacking}: put that of the model that was exported beside its towers")
    return Files(
        repository.rstrip("/").split("/")[-1],
        layout,
        folder / image,
        folder / text,
        tokenizer,
        preprocess,
        read_json(preprocess),
        _read(folder / "config.json"),
        _read(folder / "special_tokens_map.json") | _read(folder / "tokenizer_config.json"),
    )


def _layout(source: str, names: set[str]) -> tuple[str, str, str]:
    found = next((layout for layout in _LAYOUTS if {layout[1], layout[2]} <= names), None)
    if found is None:
        known = ", ".join(f"{image} ({name})" for name, image, _ in _LAYOUTS)
        raise ConfigError(f"{source} has none of the known layouts: {known}")
    return found


def _fetched(repository: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # one class for each of its HTTP clients, without a common base
        raise DataError(
            f"{repository} cannot be read from the hub ({type(error).__name__}: {str(error).splitlines()[0]}): check "
            f"its name and --revision; for one of yours, hf auth login; or hf download {repository} --local-dir FOLDER "
            "on a machine that reaches it, and give that folder"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """A file of settings that need not be there."""
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        DataError: it cannot be read, or is no object of JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no settings, but a {type(content).__name__}: fetch it again")
    return content
