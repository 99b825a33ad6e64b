"""``reco``: the command line. Every command imports what is heavy when it runs."""

from __future__ import annotations

import filecmp
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperOption

from .. import __version__
from ..artifact import Artifact, whole_model
from ..config import load_settings
from ..data.source import read_lines
from ..errors import ArtifactError, ConfigError, InputError, need
from ..files import whole_file
from ..options import RefineOptions
from ..serve.settings import ServeSettings, load_serve_settings
from .compare import compare_command
from .doctor import doctor_command
from .evaluate import eval_app, report_command, study_command
from .memory import memory_app
from .model import add_command
from .shared import (
    Commands,
    Given,
    ModelOption,
    OpenOptions,
    claim_stdout,
    print_result,
    reco_of,
    reports_errors,
    settings_of,
    take_flags,
    takes,
)
from .train import export_command, fit_command, train_command

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    help="Refine CLIP embeddings through a memory of image-text pairs, without touching CLIP or your index.",
    epilog="Start with: reco demo",
)
model_app = typer.Typer(
    no_args_is_help=True, help="Model folders: of towers that you have, and the small one that comes with reco-plugin."
)
app.add_typer(memory_app, name="memory")
app.add_typer(eval_app, name="eval")
app.add_typer(model_app, name="model")
model_app.command("add", epilog="Example: reco model add Xenova/clip-vit-base-patch32 --out my_model")(add_command)
eval_app.command("study", epilog="Example: reco eval study photos/ --memory ./memory --out runs/photos")(study_command)
app.command("fit", epilog="Example: reco fit catalogue.csv --group product --model my_model --out runs/x")(fit_command)
app.command(
    "train", epilog="Example: reco train catalogue.csv --model ViT-B-32 --pretrained laion2b_s34b_b79k --out runs/x"
)(train_command)
app.command(
    "export",
    epilog="Example: reco export --model ViT-B-32 --pretrained laion2b_s34b_b79k --fusion runs/x --out my_model",
)(export_command)
app.command("report", epilog="Example: reco report runs/birds")(report_command)
app.command(
    "compare",
    epilog="Example: reco compare 'postgresql://host/shop?table=products&text=title' --memory ./memory "
    "--queries log.csv",
)(compare_command)
app.command("doctor", epilog="Example: reco doctor --json")(doctor_command)


def _name_no_type_of_flags() -> None:
    """Keep ``<bool>`` out of the help: a flag takes no value."""
    shown = getattr(TyperOption, "display_type_rich", None)
    if shown is not None:
        TyperOption.display_type_rich = lambda self, ctx: None if self.is_flag else shown(self, ctx)  # type: ignore[method-assign]


_name_no_type_of_flags()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reco-plugin {__version__}")
        raise typer.Exit


@app.callback()
def reco_command(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version, and end.")
    ] = False,
) -> None:
    """Options before the name of a command."""


@app.command("demo", epilog="Example: reco demo --out demo")
@reports_errors
def demo_command(
    *,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Where index.html, results.json and the memory go.")] = Path("demo"),
) -> None:
    """Classify drawings of entities that CLIP never saw, before and after their pairs join the memory.

    Model and drawings come with reco-plugin: nothing is fetched.
    """
    for module in ("onnxruntime", "qdrant_edge", "jinja2"):
        need(module, "reco demo", "demo")
    from ..demo.run import run

    run(load_settings(model=model).model, out)


@app.command(
    "embed",
    epilog="Example: reco embed --text 'a red fox' --image fox.jpg --memory ./memory"
    "\n\nreco embed --input queries.txt --out vectors.npy",
)
@reports_errors
@takes(RefineOptions, OpenOptions, but=("gate",))
def embed_command(
    *,
    text: Annotated[list[str] | None, typer.Option(help="A text; repeat it for more.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image file; repeat it for more.")] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="A file with one text per line.")] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--plain", help="Refined, or frozen CLIP without a memory.", show_default="the model's policy"
        ),
    ] = None,
    role: Annotated[str, typer.Option(help="query, or candidate: one of a set that competes.")] = "query",
    given: Given,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a (B, D) float32 .npy; images follow texts.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per line, and nothing else, on stdout.", callback=claim_stdout
        ),
    ] = False,
) -> None:
    """Embed texts and images, refined through the memory by default; one vector each, unit-norm."""
    import numpy as np

    texts = [*(text or []), *(read_lines(input_file) if input_file else [])]
    images = image or []
    if not texts and not images:
        raise InputError("nothing to embed: give --text, --image or --input")
    if role not in ("query", "candidate"):
        raise InputError(f"--role must be query or candidate, got {role!r}")
    place = take_flags(OpenOptions, given)
    none = refine is False  # then no memory is needed
    settings = load_settings(memory=":memory:") if none else place.existing
    with reco_of(place.model, settings, memory_kind="exact" if none else None) as reco:
        options: dict[str, Any] = {"role": role, "refine": refine, **given}
        parts = [reco.embed(texts, modality="text", **options)] if texts else []
        parts += [reco.embed(images, modality="image", **options)] if images else []
    asked = [part.retrieved for part in parts if part.retrieved is not None]
    if asked and not np.concatenate(asked).any():
        typer.echo("warning: the memory is empty, so nothing is refined and the vectors are plain", err=True)
    vectors = np.concatenate([part.vectors for part in parts])
    notes = [{"degraded": part.degraded} if part.degraded else {} for part in parts for _ in part.vectors]
    if out is not None:
        with whole_file(out) as part, part.open("wb") as file:
            np.save(file, vectors)
        result = {"file": str(out), "shape": vectors.shape, **notes[0], **notes[-1]}
        print_result(
            json.dumps(result) if as_json else f"wrote {vectors.shape[0]} x {vectors.shape[1]} float32 to {out}"
        )
        return
    for name, vector, note in zip([*texts, *map(str, images)], vectors, notes, strict=True):
        values = [round(float(value), 7) for value in vector]
        line = {"input": name, "embedding": values, **note}
        print_result(json.dumps(line, ensure_ascii=False) if as_json else f"{name}\t{values}")


@app.command("serve", epilog="Example: reco serve --memory ./memory --port 8080")
@reports_errors
@takes(OpenOptions, ServeSettings)
def serve_command(*, given: Given) -> None:
    """Serve embeddings over HTTP: OpenAI's and other shapes, /v1/refine, the memory, health and metrics.

    Every flag can also be a line below [serve] in reco.toml, or a variable: RECO_SERVE_PORT=9000. Keys cannot be
    flags, since other users of a machine can see those: RECO_SERVE_API_KEYS=key1,key2 and RECO_SERVE_ADMIN_KEY.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, "reco serve", "serve")
    from ..serve.run import check_address, run

    place = take_flags(OpenOptions, given)
    if "aliases" in given:
        given["aliases"] = dict(map(_parse_alias, given["aliases"]))
    settings = load_serve_settings(**given)
    check_address(settings)
    if settings.workers != 1:
        from ..serve.workers.together import how_many, serve_together

        chosen = settings_of(place.model, place.served)
        if (workers := how_many(settings.workers, chosen)) > 1:
            serve_together(chosen, settings, workers)
            return
    with reco_of(place.model, place.served) as reco:
        run(settings, reco)


def _parse_alias(word: str) -> tuple[str, str]:
    name, found, meaning = word.partition("=")
    if not found:
        raise ConfigError(f"--aliases {word!r} is not NAME=plain or NAME=refined")
    return name, meaning


@model_app.command("get", epilog="Example: reco model get quickstart --out triton_models")
@reports_errors
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
    from ..config import quickstart_model

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


def main() -> None:
    """Entry point of the ``reco`` script."""
    try:
        app()
    except KeyboardInterrupt:  # before any command runs
        sys.exit(130)
