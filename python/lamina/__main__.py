"""`python -m lamina`: the command, where no script of that name is on the path."""

from .bench.cli import app

if __name__ == "__main__":
    app(prog_name="lamina")
