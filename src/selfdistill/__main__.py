"""`python -m selfdistill` is the command `selfdistill`."""

from .cli import main

if __name__ == "__main__":
    main()
