"""What a service and a memory endure: kills, clients that hang up, overload, queries beside bulk work.

``python -m benchmarks.torture`` prints what each round tried, and what was lost, refused or late. ``--help`` lists the
rounds. ``make torture`` runs a short round of each; ``--write`` fills rows of docs/measurements.md.
"""
