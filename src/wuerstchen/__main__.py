"""`python -m wuerstchen` is the command `wuerstchen`."""

from wuerstchen.cli import main

if __name__ == "__main__":
    main()
