"""How a Triton server runs the graphs: batches, queue, accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError

Accelerator = Literal["none", "cuda", "tensorrt"]
MAX_BATCH = 64
GPU_DELAY_US = 1000
"""On a GPU a batch costs little more than one item, so it pays to wait for others; on a CPU it does not."""


@dataclass(frozen=True)
class Serving:
    """Settings of ``config.pbtxt`` beyond the ports; :func:`serving` fills in defaults."""

    accelerator: Accelerator = "none"  # of GPU instances; instances on a CPU ignore it
    max_batch: int = MAX_BATCH  # largest batch that the server forms or takes
    preferred_batches: tuple[int, ...] = ()  # sizes to wait for; empty: waiting requests run at once
    queue_delay_us: int = 0  # how long a request may wait for others, in microseconds
    max_queue: int = 512  # number of waiting requests from which new ones are refused
    engine_cache: str = "/var/cache/reco-tensorrt"  # folder of the engines, as the server sees it; mount a volume there

    def __post_init__(self) -> None:
        if self.accelerator not in get_args(Accelerator):
            raise ConfigError(f"accelerator {self.accelerator!r} is none of {', '.join(get_args(Accelerator))}")
        if self.max_batch < 1 or self.max_queue < 1 or self.queue_delay_us < 0:
            raise ConfigError(
                f"max batch {self.max_batch} and queue {self.max_queue} must be at least 1, the delay "
                f"{self.queue_delay_us} us at least 0"
            )
        if wrong := [size for size in self.preferred_batches if not 1 <= size <= self.max_batch]:
            raise ConfigError(f"preferred batch {wrong[0]} is not in 1 to {self.max_batch}, the largest batch")
        if not self.engine_cache.startswith("/"):
            raise ConfigError(f"engine cache {self.engine_cache!r} must be an absolute path inside the server")

    @property
    def usual_batch(self) -> int:
        """The batch size that an engine is tuned for."""
        return min(self.preferred_batches, default=self.max_batch)

    @property
    def warm_batches(self) -> tuple[int, ...]:
        """Batch sizes to run once before the server is ready."""
        if self.accelerator == "none":
            return (1,)
        return tuple(sorted({1, *self.preferred_batches, self.max_batch}))


def serving(
    accelerator: Accelerator = "none",
    *,
    max_batch: int = MAX_BATCH,
    preferred_batches: tuple[int, ...] | None = None,
    queue_delay_us: int | None = None,
    max_queue: int = 512,
    engine_cache: str = Serving.engine_cache,
) -> Serving:
    """Serving with the defaults of an accelerator where None: GPUs wait a little for a quarter or a whole batch.

    Raises:
        ConfigError: an invalid value, or a preferred batch above the largest.

    >>> serving("tensorrt", max_batch=32).preferred_batches
    (8, 32)
    """
    gpu = accelerator != "none"
    if preferred_batches is None:
        preferred_batches = tuple(sorted({max(max_batch // 4, 1), max_batch})) if gpu else ()
    if queue_delay_us is None:
        queue_delay_us = GPU_DELAY_US if gpu else 0
    return Serving(
        accelerator, max_batch, tuple(sorted(set(preferred_batches))), queue_delay_us, max_queue, engine_cache
    )
