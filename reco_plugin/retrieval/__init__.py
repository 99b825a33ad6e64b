"""Retrieval: the search of the memory, guarded, and what follows from it for a query."""
