"""``reco train`` and ``reco export``: offline, with torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from ..defaults import BATCH, NEIGHBOURS, SAME_IMAGE, STEPS
from .errors import keeps, reports_errors
from .options import JsonOption
from .stores import CollectionOption

EncoderOption = Annotated[
    str, typer.Option("--model", help="open_clip model: a name, hf-hub:ORG/NAME or local-dir:PATH.")
]
PretrainedOption = Annotated[str | None, typer.Option(help="open_clip weights tag, or a checkpoint file.")]
RandomOption = Annotated[bool, typer.Option("--random-weights", help="Allow a model without weights (tests only).")]
T = TypeVar("T")


def _torch(load: Callable[[], T]) -> T:
    """Import what needs torch, with the install line when it is not there."""
    from ..errors import MissingExtra

    try:
        return load()
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "training and export") from error


@reports_errors
def train_command(
    source: Annotated[str, typer.Argument(help="Pairs to train on: .csv/.tsv/.jsonl, folder, .tar, .npz or .parquet.")],
    *,
    model: EncoderOption,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, checkpoint, TensorBoard log, fusion.pt.")],
    pretrained: PretrainedOption = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Pairs to retrieve from: folder or URL of a Qdrant server.", show_default="the training pairs"
        ),
    ] = None,
    collection: CollectionOption = None,
    group: Annotated[
        str | None,
        typer.Option(help="Payload column: pairs with the same value show the same thing.", show_default="the caption"),
    ] = None,
    fuser: Annotated[
        Literal["paper", "reco", "training-free"],
        typer.Option(help="reco: ours, fitted in seconds. paper: the plain layer, trained by the paper's loss."),
    ] = "reco",
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours per query.")] = NEIGHBOURS,
    steps: Annotated[int, typer.Option(min=0, help="paper: training steps; 0 keeps the untrained start.")] = STEPS,
    batch: Annotated[int, typer.Option(min=2, help="paper: pairs per step.")] = BATCH,
    lr: Annotated[float, typer.Option(min=0, help="paper: peak learning rate.")] = 1e-3,
    heads: Annotated[int, typer.Option(min=1, help="paper: attention heads.")] = 8,
    seed: Annotated[int, typer.Option(help="paper: seed of the start, the batches and the dropout.")] = 0,
    near_duplicate: Annotated[
        float, typer.Option(min=0, max=1, help="Image cosine from which a neighbour is hidden.")
    ] = SAME_IMAGE,
    device: Annotated[str, typer.Option(help="torch device.")] = "cpu",
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="paper: precision of the fusions' arithmetic; weights and loss are fp32."),
    ] = "fp32",
    processes: Annotated[
        int, typer.Option(min=1, help="paper: how many share each batch, on a GPU each with --device cuda.")
    ] = 1,
    random_weights: RandomOption = False,
) -> None:
    """Train the two fusions on your pairs, around a frozen encoder. An interrupted run resumes when started again.

    The encoder's vectors are cached in the run's folder. Each pair's own memory entry and near-duplicates of its
    image are hidden from its queries: otherwise the fusion would learn to copy its caption.
    """

    def load() -> Any:
        from ..train import run

        return run

    run = _torch(load)
    recipe = run.Recipe(
        source=source,
        model=model,
        pretrained=pretrained,
        memory=memory,
        collection=_collection(memory, collection),
        group=group,
        fuser=fuser,
        k=k,
        steps=steps,
        batch=batch,
        lr=lr,
        heads=heads,
        seed=seed,
        near_duplicate=near_duplicate,
        device=device,
        precision=precision,
        random_weights=random_weights,
    )
    with keeps(f"encoded vectors and the last checkpoint stay in {out}; the same command goes on from there"):
        joined = _torch(lambda: run.begin(recipe, out, processes))
        _torch(lambda: run.train(recipe, out, joined))
    if not joined.leads:
        return
    weights = f" --pretrained {pretrained}" if pretrained else ""
    typer.echo(
        f"wrote {out / 'fusion.pt'}; curves: tensorboard --logdir {out}\n"
        f"next: reco export --model {model}{weights} --fusion {out} --out my_model"
    )


def _collection(memory: str | None, given: str | None) -> str | None:
    """The collection that pairs are retrieved from, for the recipe; None where the memory has none."""
    from ..config import load_settings
    from ..errors import ConfigError

    served = memory is not None and "://" in memory
    if given is not None and not served:
        raise ConfigError("--collection is of a Qdrant server: give its URL, --memory grpc://localhost:6334")
    return load_settings(memory_collection=given).memory_collection if served else None


@reports_errors
def export_command(
    *,
    model: EncoderOption,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    pretrained: PretrainedOption = None,
    fusion: Annotated[
        Path | None, typer.Option(help="Folder of `reco train`.", show_default="none: training-free")
    ] = None,
    fuser: Annotated[
        Literal["paper", "reco", "training-free"],
        typer.Option(help="Untrained fusion to export when --fusion is not given."),
    ] = "training-free",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="Precision of the weights; with --accelerator cuda or tensorrt fp16 arithmetic, too. int8: CPU only."
        ),
    ] = "fp32",
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, help="Default number of neighbours.", show_default="of the training, or 10"),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt that the encoder was trained with, {} for a name; repeatable.", show_default="a photo of a {}."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(help="Pairs to compare with torch on, as for reco train.", show_default="drawn samples"),
    ] = None,
    license_: Annotated[
        list[str] | None,
        typer.Option("--license", help="Licence of the weights or the data, for the manifest; repeatable."),
    ] = None,
    accelerator: Annotated[
        Literal["none", "cuda", "tensorrt"],
        typer.Option(help="What speeds up Triton's instances on a GPU; those on a CPU ignore it."),
    ] = "none",
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that Triton forms.")] = 64,
    preferred_batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Batch size that Triton waits for; repeatable.", show_default="GPU: a quarter and the whole"
        ),
    ] = None,
    queue_delay_us: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Microseconds that a request waits for others to make a batch.",
            show_default="0; with an accelerator 1000",
        ),
    ] = None,
    engine_cache: Annotated[
        str, typer.Option(help="Folder inside the server for TensorRT's engines: mount a volume there.")
    ] = "/var/cache/reco-tensorrt",
    random_weights: RandomOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model folder: four ONNX graphs, tokenizer, manifest, Triton configuration.

    Every graph is first compared with torch, on images and texts: least cosine and top-10 overlap. If one differs
    by more than its precision allows, nothing is written.
    """

    def load() -> Any:
        from ..train import export_model, parity, serving

        return export_model, parity, serving

    module, parity, serving = _torch(load)
    parities = _torch(
        lambda: module.export_model(
            model,
            out,
            pretrained=pretrained,
            fusion=fusion,
            fuser=fuser,
            precision=precision,
            serving=serving.serving(
                accelerator,
                max_batch=max_batch,
                preferred_batches=tuple(preferred_batch) if preferred_batch else None,
                queue_delay_us=queue_delay_us,
                engine_cache=engine_cache,
            ),
            k=k,
            templates=tuple(template or ()),
            source=check,
            licenses=tuple(license_ or ()),
            random_weights=random_weights,
        )
    )
    if as_json:
        typer.echo(json.dumps([vars(found) for found in parities], indent=2))
        return
    typer.echo("\n".join(parity.table(parities)))
    if check is None:
        typer.echo("compared on drawn samples; on your own images and captions: --check SOURCE")
    typer.echo(f"wrote {out}; next: reco doctor --model {out}")
