"""Ready ONNX towers of others, as published or exported by any tool: found, checked, and written as a model folder.

Needs no torch. Everything that a published folder says by its own files is taken from there; what none says is asked
for, with the flag that gives it.
"""
