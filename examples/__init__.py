"""Applications and configurations that use the package from outside; the package never imports them."""
