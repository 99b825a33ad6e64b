"""The playground at ``/``: one page without build step, CDN or requests to other hosts.

::

    GET  /                the page; its scripts and styles lie under /page/
    POST /page/compare    one query: what was retrieved, and rankings by the plain and by the refined vector
    GET  /page/examples   a few pairs to begin with

Pairs are added and deleted through ``/v1/memory``, as by other clients.
"""

from .router import router

__all__ = ["router"]
