"""How tests start processes that train: one thread, no GPU, and without what only the tests have installed.

Lightning Fabric imports torchmetrics where there is one, and with it scipy and torchvision; open_clip imports
transformers: 5 seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
_PATHS = [str(SUPPORT / "lean"), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": os.pathsep.join(_PATHS),
}
