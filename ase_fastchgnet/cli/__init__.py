"""The `fastchgnet` command: one file per command, registered in app.py.

Commands import torch, ASE and the rest of the package when they run, so that `fastchgnet --help` answers at once.
"""


def main() -> None:
    """Entry point of the `fastchgnet` command."""
    from .app import app

    app(prog_name="fastchgnet")
