"""Adapters: each module translates for one framework and does nothing else; ``base`` is what all of them share."""
