"""The HTTP service: one internal request model, one file per API dialect, a synchronous core behind async routes.

::

    request --> middleware (id, prefix, host, body) --> key --> dialect: JSON -> EmbedRequest
                                                             |
                       bounded queue, deadline (edge) --> Embedder --> Reco: encode -> retrieve -> fuse
                                                             |
    response <-- headers (degraded, timings) <-- dialect: Embedded -> JSON, or Failure -> the caller's error shape
"""
