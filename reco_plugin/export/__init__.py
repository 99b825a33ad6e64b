"""A CLIP becomes a model folder, and the paper's layer is trained. The only place that imports torch and open_clip.

::

    open_clip.py    a model of open_clip -> a frozen CLIP in torch
    export.py                      a frozen CLIP -> a model folder, compared with torch
    ready.py                       ONNX towers that others exported -> a model folder, without torch
    train.py                       pairs -> the paper's layer
"""
