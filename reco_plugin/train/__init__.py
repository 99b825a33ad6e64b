"""Offline: fusion training and export. The only place that imports torch and open_clip."""
