"""This service beside others that serve the same weights: rates, latencies, processor time and memory of each.

    python -m benchmarks.peers                              all tables, printed; a quarter of an hour on two cores
    python -m benchmarks.peers --quick                      fewer callers, one short round: some minutes
    python -m benchmarks.peers text --docs docs/measurements    one table, into peers.md and peers.json there

It makes ViT-B/32 of random weights once, as a checkpoint of transformers and as our model folders, and an
environment of its own from ``locks/peers.txt`` for the others (:mod:`.environment`): 6 GB, since PyPI's torch for Linux
brings CUDA.

Every service may use all cores, runs as many threads as there are, and is asked by callers in a process of their own
(:mod:`.callers`), one service at a time; in each round all take turns. Every answer is compared with what transformers
computes in this process.
"""
