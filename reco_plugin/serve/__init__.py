"""The HTTP service: one internal request model, one module per embedding API, a synchronous core behind async routes.

::

    request  -> RequestMiddleware -> key -> dialect: JSON -> EmbedRequest
                                              |
                    RequestContext.embed -> Executor.run (queue, thread) -> Embedder.embed -> Reco
                                              |
    response <- headers, log <- dialect: Embedded -> JSON, or Failure -> the error format of the API
"""
