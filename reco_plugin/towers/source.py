"""Where the towers lie: a folder or a hub repository, in one of the published layouts, or single files.

::

    transformers.js   onnx/vision_model.onnx, onnx/text_model.onnx, preprocessor_config.json, tokenizer.json
    immich            visual/model.onnx, textual/model.onnx, visual/preprocess_cfg.json, textual/tokenizer.json
    optimum           model.onnx with both towers, beside the files of transformers
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ConfigError, DataError, need
from ..files import in_home
from ..train.parity import Precision
from .graph import weights_beside
from .options import AddOptions

_SUFFIXES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("",),
    "fp16": ("_fp16", ""),
    "int8": ("_int8", "_quantized", "_uint8", ""),
}
"""Of the graphs' files, best first; the last is converted here."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_HUB = "hf://"
_WEIGHTS = frozenset(
    {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}
)
_OWN_FILES = "give --image, --text, --tokenizer and --preprocess"


@dataclass(frozen=True)
class TowerLayout:
    """A published form."""

    name: str
    image: str  # path of a graph, {} for the suffix of its precision
    text: str
    beside: tuple[str, ...]  # folders in which its other files lie, by preference


LAYOUTS = (
    TowerLayout("transformers.js", "onnx/vision_model{}.onnx", "onnx/text_model{}.onnx", ("", "onnx/")),
    TowerLayout("transformers.js without a folder", "vision_model{}.onnx", "text_model{}.onnx", ("",)),
    TowerLayout("immich", "visual/model{}.onnx", "textual/model{}.onnx", ("textual/", "visual/", "")),
    TowerLayout("optimum", "onnx/model{}.onnx", "onnx/model{}.onnx", ("", "onnx/")),
    TowerLayout("optimum without a folder", "model{}.onnx", "model{}.onnx", ("",)),
)


@dataclass(frozen=True)
class Files:
    """The files of a model; what a folder does not hold is None, or empty."""

    name: str  # of the encoder, readable
    layout: str
    image: Path
    text: Path
    ready: bool  # whether the graphs have the wanted precision already
    tokenizer: Path
    preprocess: Path
    preprocessing: dict[str, Any]  # content of the latter
    config: dict[str, Any]  # config.json, of transformers or open_clip
    tokenizing: dict[str, Any]  # tokenizer_config.json with special_tokens_map.json


@dataclass(frozen=True)
class _Place:
    """Names of the files of a folder or repository, and how to get one here."""

    source: str
    names: frozenset[str]
    fetch: Callable[[str], Path]

    def get(self, *names: str) -> Path | None:
        """The first of these that is there, with the file of its weights where it has one."""
        name = next((name for name in names if name in self.names), None)
        if name is None:
            return None
        path = self.fetch(name)
        for more in weights_beside(path) if name.endswith(".onnx") else ():
            self.fetch(str(PurePosixPath(name).with_name(more.name)))
        return path


def find_files(source: str | None, options: AddOptions) -> Files:
    """Find the files of a model.

    Raises:
        ConfigError: a file is missing, or there are two of a kind; with the flag that gives it.
        DataError: the hub cannot be reached, or has no such repository; a file cannot be read.
    """
    place = _open(source, options.revision) if source else _Place("", frozenset(), Path)
    given = (options.image, options.text)
    for path in (*given, options.tokenizer, options.preprocess):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path} is not there, or is no file: {_OWN_FILES} by their paths")
    if source is None and not all((*given, options.tokenizer, options.preprocess)):
        raise ConfigError(f"nothing to import: name a folder or a repository as SOURCE, or {_OWN_FILES}")
    layout = _layout(place) if None in given else None
    image, text, suffixes = _towers(place, layout, options)
    beside = layout.beside if layout else ("",)
    ready = not any(given) and suffixes.isdisjoint({""})
    return _with_settings(place, beside, options, (image, text), layout.name if layout else "single files", ready)


def find_checkpoint(source: str, options: AddOptions) -> Files | None:
    """The settings of a checkpoint of transformers; None where the source holds ready towers, or is something else.

    Raises:
        ConfigError: a file is missing.
        DataError: the hub cannot be reached; a file cannot be read.
    """
    if not in_home(source).is_dir() and not _REPOSITORY.fullmatch(source.removeprefix(_HUB)):
        return None
    place = _open(source, options.revision)
    if "open_clip_config.json" in place.names or any(name.endswith(".onnx") for name in place.names):
        return None
    if "config.json" not in place.names or not place.names & _WEIGHTS:
        return None
    weights = Path(place.source) / next(name for name in sorted(_WEIGHTS) if name in place.names)
    return _with_settings(place, ("",), options, (weights, weights), "transformers", ready=False)


def _with_settings(
    place: _Place, beside: tuple[str, ...], options: AddOptions, towers: tuple[Path, Path], layout: str, ready: bool
) -> Files:
    """Towers with the files beside them."""
    tokenizer = options.tokenizer or _need(place, beside, "--tokenizer", "tokenizer.json")
    preprocess = options.preprocess or _need(
        place, beside, "--preprocess", "preprocessor_config.json", "preprocess_cfg.json", "processor_config.json"
    )
    near = [tokenizer.parent] if options.tokenizer else []
    return Files(
        options.name or (place.source.rstrip("/").split("/")[-1] if place.source else towers[0].stem),
        layout,
        *towers,
        ready,
        tokenizer,
        preprocess,
        read_json(preprocess),
        _read(place, ("", *beside), "config.json", near),
        _read(place, beside, "special_tokens_map.json", near) | _read(place, beside, "tokenizer_config.json", near),
    )


def _open(source: str, revision: str | None) -> _Place:
    folder = in_home(source)
    if folder.is_dir():
        names = frozenset(path.relative_to(folder).as_posix() for path in _walk(folder))
        return _Place(str(folder.resolve()), names, folder.joinpath)
    repository = source.removeprefix(_HUB)
    if folder.exists() or not _REPOSITORY.fullmatch(repository):
        what = "is a file" if folder.exists() else "is neither a folder here nor a repository, as in org/name"
        raise ConfigError(f"{source} {what}: name a folder or repository with ready towers, or {_OWN_FILES}")
    return _hub(repository, revision)


def _walk(folder: Path) -> Iterator[Path]:
    """Files of a folder and of the folders in it."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (inner for inner in sorted(path.iterdir()) if inner.is_file())


def _hub(repository: str, revision: str | None) -> _Place:
    hub: Any = need("huggingface_hub", f"reading {repository} from the hub", "import")
    errors: Any = need("huggingface_hub.errors", "reading the hub", "import")
    elsewhere = f"on a machine that reaches it: hf download {repository} --local-dir FOLDER; then give that folder"

    def asked(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except errors.RepositoryNotFoundError:
            raise DataError(
                f"the hub has no repository {repository!r}, or it is not public: check the name; for one of yours, "
                "hf auth login"
            ) from None
        except errors.RevisionNotFoundError:
            raise DataError(f"{repository} has no revision {revision!r}: check --revision") from None
        except Exception as error:  # one class for each of its HTTP clients, without a common base
            raise DataError(
                f"the hub cannot be asked for {repository} ({type(error).__name__}): {elsewhere}"
            ) from error

    names = asked(lambda: hub.HfApi().list_repo_files(repository, revision=revision))
    return _Place(
        repository,
        frozenset(names),
        lambda name: Path(asked(lambda: hub.hf_hub_download(repository, name, revision=revision))),
    )


def _layout(place: _Place) -> TowerLayout:
    """The layout of a folder; both towers in one file only where they are not there one by one."""

    def there(pattern: str) -> bool:
        return any(pattern.format(suffix) in place.names for suffixes in _SUFFIXES.values() for suffix in suffixes)

    found = [layout for layout in LAYOUTS if there(layout.image) and there(layout.text)]
    apart = [layout for layout in found if layout.image != layout.text] or found
    if len(apart) == 1:
        return apart[0]
    if apart:
        both = " and ".join(layout.image.format("") for layout in apart)
        raise ConfigError(f"{place.source} holds two models, {both}: choose by --image and --text")
    graphs = sorted(name for name in place.names if name.endswith(".onnx"))
    seen = f"its graphs are {', '.join(graphs[:6])}: choose by --image and --text" if graphs else "it has no ONNX graph"
    known = "; ".join(layout.image.format("") for layout in LAYOUTS)
    raise ConfigError(f"{place.source} has none of the layouts that are known ({known}): {seen}")


def _towers(place: _Place, layout: TowerLayout | None, options: AddOptions) -> tuple[Path, Path, set[str]]:
    """Paths of both towers, and the suffixes of those that the layout gave."""
    paths, suffixes = [], set()
    mixed = options.image is not None or options.text is not None  # a given graph is not known to be smaller already
    wanted = _SUFFIXES[options.precision][:: -1 if mixed else 1]
    for given, pattern in ((options.image, layout and layout.image), (options.text, layout and layout.text)):
        if given:
            paths.append(given)
            continue
        choices = {pattern.format(suffix): suffix for suffix in wanted} if pattern else {}
        name = next((name for name in choices if name in place.names), None)
        path = place.get(name) if name else None
        if name is None or path is None:
            raise ConfigError(f"{place.source} has no {next(iter(choices))}: choose another --precision")
        paths.append(path)
        suffixes.add(choices[name])
    if len(suffixes) > 1 and "" in suffixes:
        raise ConfigError(f"{place.source} has one tower in {options.precision} only: choose another --precision")
    return paths[0], paths[1], suffixes


def _need(place: _Place, beside: tuple[str, ...], flag: str, *names: str) -> Path:
    found = place.get(*(folder + name for name in names for folder in beside))
    if found is None:
        where = place.source or "the files given"
        raise ConfigError(f"{where} has no {' or '.join(names)}: give it by {flag}")
    return found


def _read(place: _Place, beside: tuple[str, ...], name: str, near: list[Path]) -> dict[str, Any]:
    """A file of settings that need not be there; one beside a given tokenizer counts first."""
    path = next((folder / name for folder in near if (folder / name).is_file()), None)
    path = path or place.get(*(folder + name for folder in beside))
    return read_json(path) if path else {}


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
