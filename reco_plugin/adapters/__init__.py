"""Adapters to frameworks, one module each; ``base`` holds the code that they share."""
