"""A large memory of synthetic vectors, from the first pair to the last question, measured.

    python -m benchmarks.scale --pairs 20000 --folder /tmp/scale       minutes
    python -m benchmarks.scale --folder /tmp/scale                     1 M pairs, D = 512
    python -m benchmarks.scale --folder /tmp/scale --graph             also build Edge's own index, which takes long
    python -m benchmarks.scale --folder /tmp/scale --docs              write all that was measured there into million.md

Each step is a process of its own, so that its RAM is its own. What is measured is kept in the folder, and no step is
taken twice. Filling is killed (SIGKILL) once on the way, goes on, and is then checked pair by pair. Bytes and hours of
any size by arithmetic: benchmarks.sizing.
"""
