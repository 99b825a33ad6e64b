"""``reco serve --workers N``: several processes on one port, each with a model; one more has their memory.

The process that was started, :mod:`.together`, opens a memory in a folder or in RAM (:mod:`.owner`), starts the workers
(:mod:`.worker`) and others in place of those that die. A worker searches and writes over a Unix socket (:mod:`.line`,
:mod:`.owned`), and tells twice a second how it is; a memory on a Qdrant server is opened by each.
"""
