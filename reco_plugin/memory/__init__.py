"""The store of image-text pairs: :func:`open_memory` opens one of three kinds behind the protocol :class:`Memory`."""

from ..types import Fingerprint
from .base import Memory, Searches, part_of_a_write
from .header import Header
from .opening import memory_of, open_memory
from .scope import in_scope

__all__ = ["Fingerprint", "Header", "Memory", "Searches", "in_scope", "memory_of", "open_memory", "part_of_a_write"]
