"""Speed of the runtimes, of a refinement, of the start, and of the service: one block of tables each.

    python -m benchmarks.speed                              but serve and peers: all blocks; 20 minutes on two cores
    python -m benchmarks.speed startup                      one
    python -m benchmarks.speed --write                      into the blocks of docs/measurements.md: `make bench`
    python -m benchmarks.speed serve --old DIRECTORY        the service beside that of another commit
    python -m benchmarks.speed peers                        beside infinity and open_clip; ten minutes, 6 GB
    python -m benchmarks.speed refining --pairs 1000000     another size of memory: half an hour and 6 GB

Each block is measured in a process of its own, and written at once: an interrupted run keeps its blocks. The calls that
are compared take turns (:mod:`.turns`).
"""
