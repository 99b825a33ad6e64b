"""Runtimes: each runs one ONNX graph, in process or on a Triton server."""
