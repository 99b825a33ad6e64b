"""The command line ``reco``: one module per command or group, imported when it runs."""
