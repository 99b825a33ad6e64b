"""``python -m reco_plugin`` is ``reco``, and ends quietly where it is interrupted while it still loads."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from .cpu import fewer_cores, open_closed_streams, share_cores

        open_closed_streams()
        if threads := fewer_cores():
            share_cores(threads)  # before numpy is loaded
        from .cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
