"""A search application whose index is plain CLIP vectors in Qdrant, and whose queries reco refines.

::

    catalogue.py   the drawings that are searched, the pairs of the memory, the queries
    index.py       the Qdrant collection: fill, search, digest; it knows CLIP vectors only
    queries.py     texts -> plain and refined query vectors, in process or through a `reco serve`
    measure.py     R@1 and R@10 before and after, from what the index answers
    page.py        the same side by side, with pictures
    __main__.py    the command line

Run ``python -m examples.search_app``; see docs/integrations.md.
"""
