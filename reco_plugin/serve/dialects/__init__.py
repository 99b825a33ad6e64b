"""One module per embedding API. It translates JSON to an ``EmbedRequest``, and answers and failures back.

A dialect has ``router(state) -> APIRouter``. :mod:`.fields` has what several of them share.
"""
