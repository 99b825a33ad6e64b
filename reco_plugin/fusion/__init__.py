"""Fusion: how far a query moves towards what the memory holds."""
