"""Size and parity of the quickstart model in every precision, as the tables of docs/measurements/precision.md.

make quickstart-model             # once: trains the encoder, which is not in the repository as torch weights
python -m benchmarks.precision
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from reco_plugin.demo.tasks import drawing
from reco_plugin.quickstart.dataset import Quickstart, load
from reco_plugin.train.encoder import FrozenClip, load_frozen
from reco_plugin.train.export import Samples, export
from reco_plugin.train.loop import Fusions
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.parity import Parity, Precision
from reco_plugin.train.recipe import Accelerator, Serving

INPUTS = 200
VARIANTS: tuple[tuple[Precision, Accelerator], ...] = (
    ("fp32", "none"),
    ("fp16", "none"),
    ("fp16", "cuda"),
    ("int8", "none"),
)


def measured(clip: FrozenClip, data: Quickstart, precision: Precision, accelerator: Accelerator) -> list[Parity]:
    """Export to a scratch folder, compared on drawings and captions of entities that the encoder never saw."""
    rows = [int(row) for row in data.query_rows("unseen")[:INPUTS]]
    captions = list(dict.fromkeys(item.caption for item in data.items if item.split == "unseen"))[:INPUTS]
    with tempfile.TemporaryDirectory() as scratch:
        return export(
            clip,
            Fusions(FusionConfig("paper", clip.dimension)).eval(),
            Path(scratch) / "model",
            precision=precision,
            serving=Serving(accelerator=accelerator),
            samples=Samples([drawing(data, row) for row in rows], captions),
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--clip", type=Path, help="open_clip folder of the encoder; the last one trained")
    chosen = parser.parse_args()
    folder = chosen.clip or _last_trained(chosen.cache / "quickstart-model")
    data, clip = load(), load_frozen(f"local-dir:{folder}")
    print(f"encoder sha256 {clip.digest[:12]}\n")
    print("| `--precision` `--accelerator` | graph | kB | inputs | least cosine | top-10 overlap |")
    print("|---|---|---:|---:|---:|---:|")
    for precision, accelerator in VARIANTS:
        for found in measured(clip, data, precision, accelerator):
            print(
                f"| {precision} {accelerator} | {found.graph} | {found.size_bytes / 1000:,.0f} | {found.inputs} | "
                f"{found.least_cosine:.7f} | {found.overlap:.4f} |"
            )


def _last_trained(root: Path) -> Path:
    folders = sorted(root.glob("clip*/open_clip_config.json"), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise SystemExit(f"no encoder under {root}: run `make quickstart-model`, or name one with --clip")
    return folders[-1].parent


if __name__ == "__main__":
    main()
