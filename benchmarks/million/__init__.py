"""A large memory of synthetic vectors, from the first pair to the last question, measured.

    python -m benchmarks.million --pairs 20000 --folder /tmp/million              minutes
    python -m benchmarks.million --folder /tmp/million                            1 M pairs, D = 512
    python -m benchmarks.million --pairs 200000 --index --folder /tmp/million     also build the approximate index
    python -m benchmarks.million --folder /tmp/million --docs                     write all that was measured there

Each step is a process of its own, so that its RAM is its own. What is measured is kept in the folder, and no step is
taken twice. Filling is killed (SIGKILL) once on the way, goes on, and is then checked pair by pair.
"""
