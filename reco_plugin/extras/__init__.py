"""What a memory can do beyond moving queries: presence, feedback, and how sure an answer is."""

from __future__ import annotations

from ..calibration.extra import Extra
from .presence import LearnsPresence
from .questions import LearnsMatches

LEARNED: tuple[Extra, ...] = (LearnsPresence(), LearnsMatches())
"""What a memory learns with its calibration."""
