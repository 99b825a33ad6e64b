"""``python -m reco_plugin`` is ``reco``."""

from .cli.app import main

if __name__ == "__main__":
    main()
