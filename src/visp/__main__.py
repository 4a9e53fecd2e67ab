"""`python -m visp`: the same as the command."""

from visp.cli.main import main

if __name__ == "__main__":
    main()
