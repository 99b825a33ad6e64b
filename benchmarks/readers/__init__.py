"""One catalogue of real pairs, written in every layout that is read, and read from each.

    python -m benchmarks.readers                    27,003 drawings from packages: rows, seconds, are they equal?
    python -m benchmarks.readers --ingest 5000      also build a memory of the first from each, and compare all vectors
    python -m benchmarks.readers --pairs 2000       the first of them
    python -m benchmarks.readers --docs             also write the tables into docs/measurements/readers.md

Drawings, layouts and vectors are made once in ``.cache`` and kept.
"""
