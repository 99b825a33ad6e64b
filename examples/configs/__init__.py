"""Configurations and snippets to paste; tests/examples/test_configs.py tries each."""
