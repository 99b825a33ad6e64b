"""Makes model folders and trains the paper's layer. Only this package imports torch and open_clip.

::

    open_clip.py      a model of open_clip -> a frozen CLIP in torch
    onnx_export.py    a frozen CLIP -> a model folder, compared with torch
    ready.py          existing ONNX towers -> a model folder, without torch
    train_layer.py    pairs -> the paper's layer
"""
