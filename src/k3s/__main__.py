"""`python -m k3s`."""

from k3s.cli.main import main

if __name__ == "__main__":
    main()
