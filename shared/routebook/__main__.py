"""`python -m routebook` is the `routebook` command."""

from routebook.cli import main

if __name__ == "__main__":
    main()
