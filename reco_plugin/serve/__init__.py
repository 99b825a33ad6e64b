"""The HTTP service: one internal request model, one file per API dialect, a synchronous core behind async routes.

::

    request --> life: body within limits --> key --> dialect: JSON -> EmbedRequest
                 |                                     |
                 |        queue, deadline --> Embedder --> Reco: encode -> retrieve -> fuse
                 |                                     |
    response <-- piece by piece <-- headers <-- dialect: Embedded -> JSON, or Failure -> the caller's error shape

What a request holds and how long it may take is in one place, :mod:`.life`.
"""
