"""``reco memory attach`` and ``adopt``: collections that a Qdrant server has already."""

from __future__ import annotations

import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonOption, MemoryOption, ModelOption
from .stores import CollectionOption, OptionOption, memory_settings, open_server, parse_options, say

if TYPE_CHECKING:
    from ..memory.server import Server

_CAPTIONS = 32
_SAME_ENCODER = 0.95


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
