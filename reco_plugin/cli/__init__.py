"""The command line: thin commands that import what is heavy when they run."""
