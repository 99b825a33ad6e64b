"""A source of image-text pairs into a memory: ``fill`` runs it, ``prepare`` and ``write`` are its stages."""
