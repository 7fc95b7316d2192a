"""`python -m convatlas`."""

from convatlas.cli.main import main

if __name__ == "__main__":
    main()
