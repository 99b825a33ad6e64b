"""An encoder that is only an API: its address, the dialects that it may speak, the calls, and how it is recognised."""

from .address import ApiAddress, is_address, parse_address
from .calls import ApiClient
from .probe import describe_change, measure

__all__ = ["ApiAddress", "ApiClient", "describe_change", "is_address", "measure", "parse_address"]
