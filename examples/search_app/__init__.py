"""A search application whose index is plain CLIP vectors in Qdrant, and whose queries reco refines.

``catalogue.py`` has the drawings, ``queries.py`` the only function that concerns reco, ``__main__.py`` the application:
``python -m examples.search_app``; see docs/integrations.md.
"""
