"""``reco``: the command line. Commands are only named here: each is imported when it runs or shows its help."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import __version__
from .commands import Command, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Refine CLIP embeddings through a memory of image-text pairs, without touching CLIP or your index.",
    epilog="Start with: reco demo",
)
memory_app = typer.Typer(
    no_args_is_help=True, help="Fill, look up, search and move image-text pairs; build versions and swap them."
)
eval_app = typer.Typer(
    no_args_is_help=True, help="Measure what refinement changes on your data. File formats: docs/evaluation.md"
)
model_app = typer.Typer(
    no_args_is_help=True, help="Model folders: of towers that you have, and the small one that comes with reco-plugin."
)
GROUPS = {"": app, "memory": memory_app, "eval": eval_app, "model": model_app}
"""Words before the name of a command -> the group that lists it."""

COMMANDS = (
    Command(
        "fit",
        "fit:fit_command",
        "Fit a model to your catalogue, measure on held-out groups whether it helps, and write the model.",
        "reco fit catalogue.csv --group product --model my_model --out runs/x",
    ),
    Command(
        "train",
        "train:train_command",
        "Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.",
        "reco train catalogue.csv --model ViT-B-32 --pretrained laion2b_s34b_b79k --out runs/x",
    ),
    Command(
        "export",
        "train:export_command",
        "Write a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.",
        "reco export --model ViT-B-32 --pretrained laion2b_s34b_b79k --fusion runs/x --out my_model",
    ),
    Command(
        "compare",
        "compare:compare_command",
        "Search an index by real queries, plain and refined, and say whether to switch. The index is only read.",
        "reco compare 'postgresql://host/shop?table=products&text=title' --memory ./memory --queries log.csv",
    ),
    Command(
        "doctor",
        "doctor:doctor_command",
        "Show versions, settings and fingerprints, and test encode -> retrieve -> fuse once. Keys are never shown.",
        "reco doctor --json",
    ),
    Command(
        "demo",
        "demo:demo_command",
        "Classify drawings of entities that CLIP never saw, before and after their pairs join the memory.",
        "reco demo --out demo",
    ),
    Command(
        "embed",
        "embed:embed_command",
        "Embed texts and images, refined through the memory by default; one vector each, unit-norm.",
        "reco embed --text 'a red fox' --image fox.jpg --memory ./memory"
        "\n\nreco embed --input queries.txt --out vectors.npy",
    ),
    Command(
        "serve",
        "serve:serve_command",
        "Serve embeddings over HTTP: OpenAI's and other shapes, /v1/refine, the memory, health and metrics.",
        "reco serve --memory ./memory --port 8080",
    ),
    Command(
        "memory info",
        "memory:info_command",
        "Show engine, number of pairs, their encoder, and what was learned about them. Needs no model.",
        "reco memory info --memory ./memory --json",
    ),
    Command(
        "memory search",
        "memory:search_command",
        "Find the pairs nearest to a text or an image, as a query would retrieve them.",
        "reco memory search 'a red fox' --k 5\n\nreco memory search --image fox.jpg --where '{\"shop\": \"de\"}'",
    ),
    Command(
        "memory add",
        "memory_fill:add_command",
        "Encode pairs and store them; an id that exists is replaced if its row changed, so run it again to resume.",
        "reco memory add catalogue.csv --memory ./memory"
        "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/sources.md.",
    ),
    Command(
        "memory update",
        "memory_fill:update_command",
        "Replace pairs whose rows changed; rows with an unknown id are counted and skipped.",
        "reco memory update changed.csv --memory ./memory",
    ),
    Command(
        "memory sync",
        "memory_fill:sync_command",
        "Make the memory match the source: add, replace, and delete pairs that are gone from the source.",
        "reco memory sync catalogue.csv --as catalogue --dry-run",
    ),
    Command(
        "memory remove",
        "memory_fill:remove_command",
        "Delete pairs by id; ids that are not there are no error, and named in a warning. Needs no model.",
        "reco memory remove fox-1 fox-2 --memory ./memory",
    ),
    Command(
        "memory export",
        "memory_move:export_command",
        "Write all pairs, as vectors with ids and payloads, and what people said, into one file, atomically.",
        "reco memory export pairs.parquet --memory ./memory",
    ),
    Command(
        "memory import",
        "memory_move:import_command",
        "Add pairs that are vectors already, of the model's encoder; of an export also what people said.",
        "reco memory import pairs.parquet --memory ./copy",
    ),
    Command(
        "memory copy",
        "memory_move:copy_command",
        "Copy a memory into another of any kind: ids, vectors, payloads, calibration. Needs no model.",
        "reco memory copy ./memory grpc://localhost:6334",
    ),
    Command(
        "memory build",
        "memory_fill:build_command",
        "Build a memory from a source; an interrupted build resumes when run again.",
        "reco memory build catalogue.csv --memory ./memory --swap",
    ),
    Command(
        "memory calibrate",
        "memory:calibrate_command",
        "Learn from the memory's own pairs which captions to trust, how far queries move, and what that gains.",
        "reco memory calibrate --memory grpc://localhost:6334 --collection shop",
    ),
    Command(
        "memory reject",
        "memory_feedback:reject_command",
        "Say that a pair is not what a text or an image asked for: it no longer moves queries like this one.",
        "reco memory reject wolf-17 --image fox.jpg --by ann --memory ./memory",
    ),
    Command(
        "memory feedback",
        "memory_feedback:feedback_command",
        "Show what people said about answers, oldest first, or forget some of it. Needs no model.",
        "reco memory feedback --memory ./memory",
    ),
    Command(
        "memory cutoff",
        "memory_cutoff:cutoff_command",
        "Print the score from which on a first answer can be believed, and how many queries pass it. Needs no model.",
        "reco memory cutoff --precision 0.9 --memory ./memory",
    ),
    Command(
        "memory versions",
        "memory_versions:versions_command",
        "List the versions of the memory. Needs no model.",
        "reco memory versions --memory ./memory",
    ),
    Command(
        "memory use",
        "memory_versions:use_command",
        "Put a finished version to use, atomically, without interrupting readers. Needs no model.",
        "reco memory use memory--v3 --memory ./memory",
    ),
    Command(
        "memory rollback",
        "memory_versions:rollback_command",
        "Go back to the version before the one in use. Needs no model.",
        "reco memory rollback --memory ./memory",
    ),
    Command(
        "memory prune",
        "memory_versions:prune_command",
        "Delete versions that are not in use, except the newest finished ones. Needs no model.",
        "reco memory prune --keep 1 --memory ./memory",
    ),
    Command(
        "eval zero-shot",
        "evaluate:zero_shot_command",
        "Classify labelled images by the nearest class prompt: frozen, images refined, prompts refined, both.",
        "reco eval zero-shot photos/test --memory ./memory --template 'a photo of a {}, a type of bird.'"
        "\n\nOnly vectors, no model: reco eval zero-shot test.npz --memory-from pairs.npz",
    ),
    Command(
        "eval retrieval",
        "evaluate:retrieval_command",
        "Search images by captions and captions by images: frozen, the query refined, the index refined, both.",
        "reco eval retrieval captions.jsonl --memory ./memory --k 10"
        "\n\nOnly vectors, no model: reco eval retrieval test.npz --memory-from pairs.npz",
    ),
    Command(
        "model add",
        "model:add_command",
        "Make a model folder of ready ONNX towers (no torch needed), or of a transformers checkpoint.",
        "reco model add Xenova/clip-vit-base-patch32 --out my_model",
    ),
    Command(
        "model get",
        "model_get:get_command",
        "Write the quickstart model to a folder, atomically, and check it; nothing is downloaded.",
        "reco model get quickstart --out triton_models",
    ),
)


for _command in COMMANDS:
    _command.add_to(GROUPS[_command.words.rpartition(" ")[0]])
for _name in ("memory", "eval", "model"):
    app.add_typer(GROUPS[_name], name=_name)


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


def main() -> None:
    """Entry point of the ``reco`` script."""
    completion = sys.argv[1:2] in (["--install-completion"], ["--show-completion"])
    try:
        app(prog_name="reco" if completion else None)  # a shell completes a name, not `python -m reco_plugin`
    except KeyboardInterrupt:  # before any command runs
        sys.exit(130)
