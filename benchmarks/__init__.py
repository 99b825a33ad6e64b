"""Commands that make the figures in the documentation."""
