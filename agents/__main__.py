"""`python -m agents` is `roompulse`."""

from agents.cli import main

if __name__ == "__main__":
    main()
