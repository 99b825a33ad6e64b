"""What a memory can do beyond moving queries: presence, confidence and feedback."""

from __future__ import annotations

from ..learning.extra import Extra
from .presence import LearnsPresence
from .questions import LearnsConfidence

LEARNED: tuple[Extra, ...] = (LearnsPresence(), LearnsConfidence())
"""What a memory learns with its calibration."""
