"""An encoder that is only an API: its address, the dialects that it may speak, the calls, and how it is recognised.

::

    address.py   https://api.jina.ai/v1?model=jina-clip-v2  ->  who is asked, how, and for which model
    dialects.py  items -> the JSON of a request, the JSON of an answer -> rows
    calls.py     one request: retries, errors, what is counted
    probe.py     fixed inputs, from whose vectors dimension, images and identity are measured
"""

from .address import ApiAddress, is_address, parse_address
from .calls import ApiClient
from .probe import RecognisedApi, describe_change, measure

__all__ = ["ApiAddress", "ApiClient", "RecognisedApi", "describe_change", "is_address", "measure", "parse_address"]
