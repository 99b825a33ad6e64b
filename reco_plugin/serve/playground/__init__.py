"""The playground at ``/``: one page, without a build step, a CDN or requests to other hosts.

::

    GET  /                the page; its scripts and styles are below /page/files/
    POST /page/compare    one query: the retrieved pairs, and rankings by the plain and the refined vector
    GET  /page/examples   a few pairs to start with

The page adds and deletes pairs through ``/v1/memory``, as other clients do.
"""

from .router import router

__all__ = ["router"]
