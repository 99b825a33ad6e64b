"""``python -m reco_plugin``, the same as ``reco``; Ctrl-C while it loads prints no trace."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from .cpu import fewer_cores, open_closed_streams, share_cores

        open_closed_streams()
        if threads := fewer_cores():
            share_cores(threads)  # before numpy is loaded
        from .cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
