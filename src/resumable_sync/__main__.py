"""`python -m resumable_sync` is the command line `resumable-sync`."""

import sys

from resumable_sync._errors import MissingExtraError

__all__ = ["main"]


def main() -> int:
    """Run the command line; give its exit status."""
    try:
        from resumable_sync import cli  # noqa: PLC0415 - what it needs may not be installed
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
