"""Load on a live ``reco serve``: texts, images and vectors, while the memory is written; every answer is checked.

Run ``python -m benchmarks.load --page docs/measurements/load.md`` (60 s; without a page, it prints).
"""
