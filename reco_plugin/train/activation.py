"""Refuse weights that were trained with another activation than the model is built with."""

from __future__ import annotations

import open_clip

from ..errors import ConfigError

_SUFFIX = "-quickgelu"


def check_activation(model: str, pretrained: str | None) -> None:
    """Compare open_clip's configuration of a built-in model with that of its weights, before anything is fetched.

    open_clip only warns. The vectors would be valid, plausible and worse: QuickGELU is ``x * sigmoid(1.702 x)``,
    near enough to GELU that nothing else notices.

    Raises:
        ConfigError: they differ; the message holds the model's right name.
    """
    if not pretrained or ":" in model:
        return  # a schema's folder holds the configuration together with the weights
    model = model.replace("/", "-")
    plain = model.removesuffix(_SUFFIX)
    weights, config = open_clip.get_pretrained_cfg(plain, pretrained), open_clip.get_model_config(model)
    if not weights or config is None:
        return  # a checkpoint file, which says nothing of it; or unknown, which open_clip reports
    trained, built = bool(weights.get("quick_gelu")), bool(config.get("quick_gelu"))
    right = plain + _SUFFIX if trained else plain
    if trained != built and right != model and open_clip.get_model_config(right) is not None:
        name = {True: "QuickGELU", False: "GELU"}
        raise ConfigError(
            f"weights {pretrained!r} were trained with {name[trained]}, but model {model!r} is built with "
            f"{name[built]}: its embeddings would be wrong. Use --model {right} --pretrained {pretrained}"
        )
