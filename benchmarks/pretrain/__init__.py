"""Training of the quickstart's mini CLIP."""
