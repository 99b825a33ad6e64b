"""Load on a live ``reco serve``: texts, images and vectors, while the memory is written; every answer is checked.

Run ``python -m benchmarks.load`` (60 s, writes docs/measurements/load.md).
"""
