"""LAION's ``clip_benchmark`` on a model folder and a memory: ``python -m reco_plugin.adapters.clip_benchmark eval``.

With ``--model_type reco``, ``--model`` is a model folder and ``--pretrained`` gives the memory and what it refines
(:func:`parse`): images and the texts of retrieval as queries, classes as one set of candidates. With both refined, one
cosine of the two is no score, so an image's "vector" is then the list of its exact scores for the classes.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, MemoryStoreError, RecoError, importing
from ..files import in_home
from ..preprocess import ImageConfig, images_to_array
from ..reco import Reco
from ..score import ExactScorer
from ..types import MODALITIES, Modality, Vectors

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "reco"
_NORM = 1000.0
"""Of a list of scores as a vector, filled up to it: clip_benchmark's normalisation then scales all alike."""
_SIDES: dict[str, tuple[Modality, ...]] = {"image": ("image",), "text": ("text",), "both": MODALITIES}


def parse(pretrained: str) -> tuple[tuple[Modality, ...], str]:
    """Read ``frozen``, ``MEMORY`` (images are refined), ``image@MEMORY``, ``text@MEMORY`` or ``both@MEMORY``.

    >>> parse("text@./memory"), parse("http://host:6333"), parse("frozen")
    ((('text',), './memory'), (('image',), 'http://host:6333'), ((), ':memory:'))
    """
    side, _, memory = pretrained.partition("@")
    if pretrained == "frozen":
        return (), ":memory:"
    return (_SIDES[side], memory) if memory and side in _SIDES else (("image",), pretrained)


def transform(image: Image.Image, *, config: ImageConfig, max_pixels: int) -> torch.Tensor:
    """Preprocess an image for the encoder graph, (H, W, 3) uint8."""
    return _tensor(images_to_array([image], config, max_pixels)[0])


class Texts(list[str]):
    """The "tokenizer": passes texts through; the model tokenises for its own graph."""

    device: Any = "cpu"

    def to(self, device: Any) -> Texts:
        """Note the device of the vectors."""
        self.device = device
        return self


class BenchmarkModel:
    """An open Reco with the methods that clip_benchmark calls; vectors are (B, D) float32, unit-norm."""

    def __init__(self, reco: Reco, refined: tuple[Modality, ...]) -> None:
        self.reco, self.refined = reco, refined
        self._among: ExactScorer | None = None  # the classes, once they are known and both sides are refined

    def eval(self) -> None:
        """Nothing here trains."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed (B, H, W, 3) uint8 to (B, D), refined as queries if images are refined; or to scores, filled up."""
        images: Any = pixels.cpu().numpy()
        if self._among is not None:
            scores = self._among.score(self.reco.embed_images(images, refine=False)).scores
            return _tensor(fill_up(scores), pixels.device)
        return _tensor(self.reco.embed_images(images, refine="image" in self.refined, target="text"), pixels.device)

    def encode_text(self, texts: Texts) -> torch.Tensor:
        """Embed B texts of a retrieval to (B, D), refined as queries if only texts are; ConfigError for ``both``."""
        if self.refined == MODALITIES:  # candidates would have to be refined as a set
            raise ConfigError("both@ is for classification; for retrieval: image@, text@ or `reco eval retrieval`")
        return _tensor(self.reco.embed_texts(texts, refine="text" in self.refined, target="image"), texts.device)

    def refine_classes(self, classes: torch.Tensor) -> torch.Tensor:
        """Refine the classes' mean prompts (D, C) as one set of candidates, if texts are refined.

        With both sides, returns (C + 1, C), which reads the scores out of an image's vector; where the classes have no
        exact scores, since they stay plain or another fusion refines them, their vectors.
        """
        if "text" not in self.refined:
            return classes
        plain = classes.T.cpu().numpy()
        found = self.reco.refine(plain, modality="text", role="candidate", target="image")
        if self.refined == MODALITIES and found.moves is not None:
            self._among = ExactScorer(self.reco, plain)
            return _tensor(_NORM * np.eye(len(plain) + 1, len(plain), dtype=np.float32), classes.device)
        return _tensor(found.vectors, classes.device).T


def fill_up(scores: Vectors) -> Vectors:
    """Scores (B, C) as vectors (B, C + 1), all of one norm.

    >>> fill_up(np.float32([[0.5, 0.75]])).round(1).tolist()
    [[0.5, 0.800000011920929, 1000.0]]
    """
    rest = _NORM**2 - np.square(scores.astype(np.float64)).sum(axis=1, keepdims=True)
    return np.concatenate([scores, np.sqrt(np.maximum(rest, 0.0))], axis=1).astype(np.float32)


def load(model_name: str, pretrained: str, **_: Any) -> tuple[BenchmarkModel, partial[torch.Tensor], type[Texts]]:
    """Open a model folder and a memory, closed with the model; MemoryStoreError for a missing or empty memory."""
    refined, memory = parse(pretrained)
    if "://" not in memory and memory != ":memory:" and not in_home(memory).exists():
        raise MemoryStoreError(f"--pretrained {pretrained}: there is no memory at {memory!r}: reco memory add --help")
    reco = Reco.open(model_name, memory=memory, on_memory_failure="fail")  # no figures of frozen vectors instead
    model = BenchmarkModel(reco, refined)
    weakref.finalize(model, reco.close)
    if refined and not len(reco.memory):
        raise MemoryStoreError(f"--pretrained {pretrained}: the memory is empty, so nothing would be refined")
    return model, partial(transform, config=reco.manifest.image, max_pixels=reco.settings.max_pixels), Texts


def register() -> None:
    """Register the model type ``reco`` with clip_benchmark in this process, or raise MissingExtra."""
    with importing("clip-benchmark", "clip-benchmark", "this adapter"):
        from clip_benchmark import models
        from clip_benchmark.metrics import zeroshot_classification
    if MODEL_TYPE in models.TYPE2FUNC:
        return
    build = zeroshot_classification.zero_shot_classifier

    def classifier(model: Any, *args: Any, **options: Any) -> torch.Tensor:
        if not isinstance(model, BenchmarkModel):
            return build(model, *args, **options)  # type: ignore[no-any-return]
        return model.refine_classes(build(BenchmarkModel(model.reco, ()), *args, **options))

    # Its accuracy() calls float() on arrays of one element, which NumPy 2.4 refuses (LAION-AI/CLIP_benchmark#147).
    zeroshot_classification.float = lambda value: float(value if isinstance(value, str) else value.item())
    models.TYPE2FUNC[MODEL_TYPE] = load
    models.MODEL_TYPES.append(MODEL_TYPE)
    # It embeds class by class and has no hook after the last one, where the set of candidates is complete.
    zeroshot_classification.zero_shot_classifier = classifier


def _tensor(array: Any, device: Any = "cpu") -> torch.Tensor:
    import torch

    return torch.from_numpy(array).to(device)


def main() -> None:
    """Run clip_benchmark's command line, without autocast for our models: it would only round cosines to 8 bits."""
    try:
        register()
        from clip_benchmark import cli

        _, args = cli.get_parser_args()
        if getattr(args, "model_type", None) != MODEL_TYPE:
            cli.main()
            return
        named = {"{model": args.model, "{pretrained": args.pretrained}  # a path there would fail after all the work
        if any("/" in name for field in named if field in args.output for name in named[field]):
            raise ConfigError(f"--output {args.output} would hold a path: name the file, or work beside both folders")
        args.amp = False
        cli.main_eval(args)
    except RecoError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
