"""Fill a memory from a source: ``fill`` runs the stages of ``prepare`` and ``write``, here or on Ray."""
