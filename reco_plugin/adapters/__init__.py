"""Adapters: each module translates for one framework and does nothing else."""
