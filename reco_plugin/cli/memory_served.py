"""``reco memory build, versions, use, rollback, prune, attach, adopt``: what only a Qdrant server can do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption, MemoryOption, ModelOption
from .stores import CollectionOption, OptionOption, memory_settings, open_server, parse_options, say

if TYPE_CHECKING:
    from ..config import Settings
    from ..memory.server import Server
    from ..memory.versions import Version, Versions

_CAPTIONS = 32
_SAME_ENCODER = 0.95


def build_command(
    source: Annotated[str, typer.Argument(help="Pairs, as for `reco memory add`.")],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    swap: Annotated[bool, typer.Option("--swap", help="Put it to use at once, atomically, when it is right.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest unfinished version.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is indexed.")] = 3600,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a new version of the memory beside the one in use, count it, and swap; the old one stays for rollback."""
    from ..artifact import Artifact
    from ..data import read_pairs
    from ..memory.transfer import lacking_pairs
    from ..reco import Reco

    pairs = read_pairs(source)  # before anything is made for a source that is not there
    settings = memory_settings(memory, collection, option)
    fingerprint = Artifact.load(model or settings.model).manifest.fingerprint
    with _versions(settings) as versions:
        begun = versions.unfinished(fingerprint) if resume else None
        name = begun or versions.begin(fingerprint)
        options = parse_options(option)
        said = {"memory_collection": name, "memory_options": options, "on_memory_failure": "fail"}
        with Reco.open(model, settings.memory, **said) as reco:
            before = len(reco.memory)
            wanted = lacking_pairs(pairs, reco.memory.store) if begun else pairs
            added = reco.memory.add(wanted, progress=sys.stderr.isatty())
        version = versions.finish(name, before + added, fingerprint, wait_s=wait)
        if swap:
            version = versions.use(name)
    used = "is in use" if swap else f"is ready: reco memory use {name}"
    say(_told(version), f"{name} holds {version.pairs:,} pairs and {used}", as_json)


def versions_command(
    *, memory: MemoryOption = None, collection: CollectionOption = None, as_json: JsonOption = False
) -> None:
    """List the versions of the memory. Needs no model."""
    with _versions(memory_settings(memory, collection)) as versions:
        found = versions.all()
    lines = [
        f"{'*' if each.live else ' '} {each.name}  {each.pairs:,} pairs of {each.fingerprint}"
        + ("" if each.finished else "  unfinished")
        for each in found
    ]
    say([_told(each) for each in found], "\n".join(lines) or "no versions", as_json)


def use_command(
    name: Annotated[str, typer.Argument(help="Name of a version.")],
    *,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a finished version to use, in one step that readers do not notice. Needs no model."""
    with _versions(memory_settings(memory, collection)) as versions:
        _say_used(versions.use(name), as_json)


def rollback_command(
    *, memory: MemoryOption = None, collection: CollectionOption = None, as_json: JsonOption = False
) -> None:
    """Go back to the version before the one in use. Needs no model."""
    with _versions(memory_settings(memory, collection)) as versions:
        _say_used(versions.rollback(), as_json)


def prune_command(
    *,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    keep: Annotated[int, typer.Option(min=0, help="Finished versions to keep besides the one in use.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Delete versions that are not in use, but for the newest finished ones. Needs no model."""
    with _versions(memory_settings(memory, collection)) as versions:
        gone = versions.prune(keep)
    say({"deleted": gone}, f"deleted {', '.join(gone)}" if gone else "nothing to delete", as_json)


def attach_command(
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    image_vector: Annotated[str, typer.Option(help="Name of its image vector.")] = "image",
    text_vector: Annotated[str, typer.Option(help="Name of its text vector.")] = "text",
    caption: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Payload field of the captions, to check the encoder with some.")
    ] = None,
    writable: Annotated[bool, typer.Option("--writable", help="Let pairs be added and removed, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Use an existing collection, with vectors of the model's encoder, as a memory. Changes only its metadata."""
    from ..artifact import Artifact

    settings = memory_settings(memory, collection)
    fingerprint = Artifact.load(model or settings.model).manifest.fingerprint
    server = open_server(settings)
    from ..memory.attach import attach
    from ..memory.layout import Layout

    layout = Layout(image_vector, text_vector, attached=True, writable=writable)
    if caption is not None:
        _check_captions(server, settings.memory_collection, text_vector, caption, model or settings.model)
    found = attach(server, settings.memory_collection, fingerprint, layout)
    say(
        {"collection": settings.memory_collection, "points": found.points, "pairs": found.pairs},
        f"attached {settings.memory_collection!r} as a memory of {fingerprint}: {found.pairs:,} of its "
        f"{found.points:,} points have both vectors",
        as_json,
    )


def adopt_command(
    *,
    into: Annotated[str, typer.Option(help="Memory to fill: a folder, or the URL of a Qdrant server.")],
    caption: Annotated[str, typer.Option(metavar="FIELD", help="Payload field that holds the captions.")],
    image_vector: Annotated[str, typer.Option(help="Name of the image vector; '' for the one without a name.")] = "",
    model: ModelOption = None,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    into_collection: Annotated[
        str | None, typer.Option(help="Collection to fill.", show_default="RECO_MEMORY_COLLECTION or reco")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out pairs whose ids are there already.")] = False,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a collection's image vectors into a memory of their own, and embed its captions. The source stays as it is.

    The image vectors must be of the model's encoder: nothing in the collection tells.
    """
    from ..errors import ConfigError
    from ..reco import Reco

    source = memory_settings(memory, collection)
    target = memory_settings(into, into_collection, option)
    if (source.memory, source.memory_collection) == (target.memory, target.memory_collection):
        raise ConfigError(f"--into names the collection that is read, {source.memory_collection!r}: name another one")
    server = open_server(source)
    from ..memory.attach import read_captioned
    from ..memory.transfer import lacking_pairs

    pairs = read_captioned(server, source.memory_collection, image_vector, caption)
    said = {"memory_collection": target.memory_collection, "memory_options": parse_options(option)}
    with Reco.open(model, target.memory, on_memory_failure="fail", **said) as reco:
        wanted = lacking_pairs(pairs, reco.memory.store) if resume else pairs
        added = reco.memory.add(wanted, progress=sys.stderr.isatty())
        held = len(reco.memory)
    say({"added": added, "pairs": held}, f"added {added:,} pairs; {into} holds {held:,}", as_json)


@contextmanager
def _versions(settings: Settings) -> Iterator[Versions]:
    server = open_server(settings)
    from ..memory.versions import open_versions

    with closing(open_versions(server, settings.memory_collection)) as versions:
        yield versions


def _check_captions(server: Server, collection: str, vector: str, field: str, model: Path) -> None:
    """Embed some captions and compare them with the vectors that are stored beside them.

    Raises:
        FingerprintMismatch: they are too far apart to be of one encoder.
    """
    import numpy as np

    from ..errors import FingerprintMismatch
    from ..memory.attach import read_captioned
    from ..reco import Reco

    with closing(read_captioned(server, collection, vector, field, _CAPTIONS)) as pairs:
        sample = list(islice(pairs, _CAPTIONS))
    with Reco.open(model, ":memory:", memory_kind="exact") as reco:
        ours = reco.encoder.texts([str(pair.text) for pair in sample])
        stored = np.stack([np.asarray(pair.image, np.float32) for pair in sample])
        if stored.shape == ours.shape and (cosine := float(np.mean(np.sum(ours * stored, axis=1)))) >= _SAME_ENCODER:
            return
    found = f"a mean cosine of {cosine:.3f}" if stored.shape == ours.shape else f"{stored.shape[1]} dimensions"
    raise FingerprintMismatch(
        f"{len(sample)} captions of {field!r}, embedded by {model}, and their vectors {vector!r} in {collection!r} "
        f"have {found}, expected a cosine of at least {_SAME_ENCODER}: the collection is of another encoder, or was "
        "embedded with a prompt around the captions"
    )


def _told(version: Version) -> dict[str, object]:
    return {
        "name": version.name,
        "pairs": version.pairs,
        "live": version.live,
        "finished": version.finished,
        "encoder": version.fingerprint.name,
    }


def _say_used(version: Version, as_json: bool) -> None:
    say(_told(version), f"{version.name} is in use: {version.pairs:,} pairs", as_json)
