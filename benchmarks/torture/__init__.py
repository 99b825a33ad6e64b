"""What a service and a memory bear: kills, bad bodies, clients that leave, overload, queries beside bulk.

Run ``python -m benchmarks.torture`` (``--help`` lists the classes); each prints what it tried and what was lost,
refused or late. ``make torture`` is a short round of all; ``--write`` puts rows into docs/measurements.md.
"""
