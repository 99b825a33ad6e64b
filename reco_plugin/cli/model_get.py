"""``reco model get``: the model that comes with reco-plugin, as a folder of one's own."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..artifact import Artifact, whole_model
from ..config import quickstart_model
from ..errors import ArtifactError


def get_command(
    name: Annotated[
        Literal["quickstart"], typer.Argument(help="Which; quickstart: a mini CLIP of drawings.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; never overwrites another folder.")] = Path(
        "triton_models"
    ),
) -> None:
    """Write the quickstart model to a folder, atomically, and check it; nothing is downloaded.

    It is a mini CLIP of 2.3 million parameters that was trained on drawings, for first experiments. For photos, take a
    CLIP: reco export --help.
    """
    source = quickstart_model()
    if source is None:
        raise ArtifactError(
            f"this installation carries no {name} model: it was built without triton_models. "
            "Install a wheel that was built in the clone, or copy triton_models from there."
        )
    artifact = Artifact.load(source)
    artifact.verify()
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    found = f"{artifact.manifest.name} ({artifact.manifest.dimension}-d, checksums match)"
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if differing := [path for path in files if not _same(source / path, out / path)]:
            raise ArtifactError(
                f"{out} exists and is not the {name} model ({differing[0]} is missing or another), so it stays as it "
                "is: choose another --out"
            )
        typer.echo(f"{out} holds it already: {found}")
        return
    with whole_model(out) as part:
        for path in files:  # only contents: an installed package may be read-only
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, part / path)
        Artifact.load(part).verify()
    typer.echo(f"wrote {out}: {found}")


def _same(source: Path, copy: Path) -> bool:
    return copy.is_file() and filecmp.cmp(source, copy, shallow=False)
