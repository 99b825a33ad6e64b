"""The command line: thin commands, with their imports inside."""
