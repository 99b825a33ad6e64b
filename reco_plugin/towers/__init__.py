"""Ready ONNX towers, as optimum and transformers.js write them: found, compared, and written as a model folder.

Needs no torch.
"""
