"""How fast the plugin is beside others, and what a refinement adds: one harness, a block of tables a question.

    python -m benchmarks.speed                              all blocks but serve, printed; 20 minutes on two cores
    python -m benchmarks.speed startup                      one
    python -m benchmarks.speed --write                      into the blocks of docs/measurements.md: `make bench`
    python -m benchmarks.speed serve --old DIRECTORY        the service beside that of another commit
    python -m benchmarks.speed refining --pairs 1000000     another size of memory: half an hour and 6 GB

Blocks are measured in processes of their own, and a block is written as soon as it is measured, so that an interrupted
round keeps what it has. Whatever is compared takes turns, call by call (:mod:`.turns`).
"""
