"""A shop's search page on the index that one has: each query plain and refined, side by side, with filter and pictures.

::

    fill.py       writes the demo's drawings into an index of any engine, by its own client, and the memory's pairs
    web.py        the page and its two calls; the index is read through its address
    page.html     the page itself
    __main__.py   the command line

Run ``python -m examples.shop --help``; see docs/shop.md. The smallest reading of the same is ``examples/search_app``.
"""
