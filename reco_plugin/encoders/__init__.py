"""Encoders: texts and pixels to CLIP vectors, by graphs of a model folder or by an API."""
