"""Options of ``reco model add``. Loads nothing heavy."""

from __future__ import annotations

from ..run_config import option
from ..train.parity import Precision
from ..train.recipe import ManifestOptions


class AddOptions(ManifestOptions):
    """What is imported, beside the source."""

    precision: Precision = option("fp32", "Precision of the weights, which are made of the float32 ones.")
    name: str | None = option(None, "Name of the encoder in the manifest.", unset="of SOURCE")
    revision: str | None = option(None, "Branch, tag or commit of a hub repository.", unset="its main branch")
