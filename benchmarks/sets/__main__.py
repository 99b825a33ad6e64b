"""Make the data sets and print a first look at them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.encode import Encoder
from reco_plugin.files import whole_file

from . import LOADERS
from . import __doc__ as about
from .first_look import HEAD, first_look, sheet
from .package_set import SPLITS
from .vectors import vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(LOADERS), help=f"some of: {', '.join(LOADERS)}")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="packages, drawings, vectors")
    parser.add_argument("--model", type=Path, default=Path("triton_models"), help="model folder of the encoder")
    parser.add_argument("--out", type=Path, help="folder for vectors (npz) and contact sheets (png)")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - LOADERS.keys():
        parser.error(f"no data set is called {', '.join(sorted(unknown))}: choose from {', '.join(LOADERS)}")
    artifact = Artifact.load(arguments.model)
    encoder, digest = Encoder(artifact, load_settings()), artifact.manifest.fingerprint.digest
    for name in arguments.sets:
        data = LOADERS[name](arguments.cache / "quickstart")
        encoded = vectors(data, encoder, digest, arguments.cache / "sets")
        print(f"{name}: {len(data.entities)} entities, {len(encoded.memory)} pairs, {len(encoded.queries)} queries")
        print(HEAD, *(first_look(encoded, split).line(f"  {split}") for split in SPLITS), sep="\n")
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            with whole_file(arguments.out / f"{name}.npz") as part:
                np.savez(part, allow_pickle=False, **encoded.arrays())
            sheet(data).save(arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
