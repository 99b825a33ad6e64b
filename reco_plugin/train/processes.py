"""The processes that train together: this one alone, or several under Lightning Fabric.

``alone -> start(device, N) -> N processes``: started here, or by ``torchrun``, which then sets it. Each gets an
equal part of every batch; refined vectors are gathered from all, so that every process contrasts with the whole batch
and computes the loss of one process. Gathering passes gradients back: the mean of the processes' gradients, which
the joined model takes, is the gradient of that loss.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..config import torchrun_processes
from ..errors import ConfigError, RecoError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class Processes:
    """A single process, with its device; the collective operations do nothing."""

    rank = 0  # its number, from 0
    count = 1  # number of processes

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone writes files and shows progress."""
        return self.rank == 0

    def part(self, total: int) -> slice:
        """This process's rows of a batch that the number of processes divides."""
        size = total // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def join(self, model: nn.Module) -> nn.Module:
        """Wrap a model: gradients are averaged over all processes, and all start from the first one's weights."""
        return model

    def gather(self, part: Tensor) -> Tensor:
        """Gather (B / count, D) of each process; (B, D) in the order of ranks, with gradients."""
        return part

    def lead(self, work: Callable[[], T]) -> T | None:
        """Run ``work`` in the first process while the others wait, without a time limit.

        Returns:
            The result of the work in the first process, None in the others.

        Raises:
            RecoError: in the others, when the first one failed.
        """
        return work()

    def leave(self) -> None:
        """Wait for all processes and disconnect: one that ends too early makes the others fail."""


class _Joined(Processes):
    """One of several processes."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__(fabric.device)
        self._fabric = fabric
        self.rank, self.count = fabric.global_rank, fabric.world_size
        # a group of its own: a wait of hours, while a catalogue is encoded, must not look like a lost process
        self._patient: Any = torch.distributed.new_group(  # its type differs between releases of torch
            backend="gloo", timeout=timedelta(days=365)
        )

    def join(self, model: nn.Module) -> nn.Module:
        return self._fabric.setup_module(model)

    def gather(self, part: Tensor) -> Tensor:
        gathered = cast(Tensor, self._fabric.all_gather(part, sync_grads=True))  # (count, B / count, D)
        return gathered.flatten(0, 1)

    def lead(self, work: Callable[[], T]) -> T | None:
        done = [False]
        result = None
        try:
            if self.leads:
                result = work()
                done = [True]
        finally:
            torch.distributed.broadcast_object_list(done, src=0, group=self._patient)
            if not done[0]:
                # before Python ends: a thread of the group that outlives it aborts the process, which then ends with -6
                torch.distributed.destroy_process_group()
        if not done[0]:
            raise RecoError(f"process {self.rank} stops because the first one failed")
        return result

    def leave(self) -> None:
        torch.distributed.barrier(group=self._patient)
        torch.distributed.destroy_process_group()


def start(device: str, count: int, *, batch: int, alone: str | None = None) -> Processes:
    """Connect the processes that train together; the first starts the others by running its own command line again.

    Args:
        device: torch device; of several processes each takes one of its kind.
        count: their number; under ``torchrun`` 1 means as many as it started.
        batch: pairs per step, of all processes together.
        alone: name of a fusion that a single process fits; several are refused.

    Raises:
        ConfigError: there are not that many devices, ``torchrun`` started another number of processes, they cannot
            share a batch equally, or ``alone`` is given.
    """
    by_torchrun = torch.distributed.is_torchelastic_launched()
    here, total = torchrun_processes() if by_torchrun else (count, count)
    if total > 1 and alone:
        raise ConfigError(f"{total} processes are for --fuser paper: {alone!r} takes one process seconds")
    if total == count == 1:
        _check_device(device)
        return Processes(device)
    if count not in (1, total):
        raise ConfigError(f"torchrun started {total} processes, not {count}: leave --processes out")
    if batch % total:
        raise ConfigError(f"{total} processes cannot share a batch of {batch}: give a multiple, --batch")
    kind, _, one = device.partition(":")
    if one:
        raise ConfigError(f"{total} processes take a device each: give --device {kind}, not {device}")
    try:
        fabric = _fabric(kind, here, total // here, by_torchrun)
    except (RuntimeError, ValueError) as error:  # Fabric raises either for devices that are missing
        raise ConfigError(
            f"{here} processes cannot each have a device of {device!r}, of which this machine has "
            f"{torch.accelerator.device_count()}: give fewer --processes, or leave --device out to train on the CPU"
        ) from error
    fabric.launch()
    return _Joined(fabric)


def _check_device(device: str) -> None:
    try:
        torch.zeros((), device=device)
    except Exception as error:  # RuntimeError, AssertionError or NotImplementedError, by what is missing
        reason = str(error).splitlines()[0].split(". ")[0]  # a list of every backend may follow
        raise ConfigError(
            f"torch cannot use device {device!r} ({reason}): leave --device out to train on the CPU"
        ) from error


def _fabric(accelerator: str, devices: int, nodes: int, by_torchrun: bool) -> Fabric:
    """Make the Fabric with an explicit launcher, so that it detects none from the environment."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=r"torch\.distributed\.nn\.functional\.all_gather is deprecated"
    )  # its own
    environment = TorchElasticEnvironment() if by_torchrun else LightningEnvironment()
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy="ddp", plugins=[environment])
