"""How the encoders of the quickstart are trained: what nobody who uses the plugin needs."""
