"""The commands, and what they have in common: logging, errors, Ctrl-C."""

import inspect
import logging
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ase_fastchgnet import __version__

from .elastic import elastic
from .eos import eos
from .info import info
from .md import md
from .neb import neb
from .phonons import phonons
from .predict import predict
from .relax import relax
from .report import complain, show_warning, without_system
from .train import finetune, train
from .tune import tune


class _Commands(TyperGroup):
    """Runs a command; turns what a user can put right into one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `| head`; typer ends quietly
            raise
        except Exception as error:
            if ctx.params["verbose"] or not _is_for_users(error):
                raise
            complain(f"error: {without_system(str(error))}")
            raise typer.Exit(1) from None


def _is_for_users(error: Exception) -> bool:
    """Whether the message says what to do; anything else is a bug, and its traceback is wanted."""
    ours = type(error).__module__.startswith("ase_fastchgnet.")  # such as RelaxationError
    return ours or isinstance(error, ValueError | ImportError | OSError | NotImplementedError)


class _Lines(logging.StreamHandler[Any]):
    """Log records to whatever standard error is at the time: a progress bar redirects it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return level + super().format(record)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ase-fastchgnet {__version__}")
        raise typer.Exit


def _filled(text: str) -> str:
    """Every paragraph in one line, so that the terminal's width breaks it; indented lines stay lines."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def fastchgnet(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, and show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """CHGNet, exact and fast: from a structure file to energies, relaxed structures, phonons, barriers.

    Structures are read from any file that ASE reads (CIF, POSCAR, extxyz, traj, …). FILE@INDEX takes one frame or
    several, counted from 0: run.traj@-1 is the last one, run.traj@::10 every tenth. Globs work quoted, too.

    Examples:
      fastchgnet predict *.cif --out results.csv
      fastchgnet relax POSCAR --out relaxed.vasp
      fastchgnet COMMAND --help

    Exit status: 0 all done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    del version
    logging.basicConfig(level="DEBUG" if verbose else "WARNING", handlers=[_Lines()], format="%(message)s")
    logging.getLogger("ase_fastchgnet").setLevel("DEBUG" if verbose else "INFO")
    warnings.showwarning = show_warning  # type: ignore[assignment]


app.callback(help=_filled(inspect.getdoc(fastchgnet) or ""))(fastchgnet)


def _add(command: Callable[..., None], panel: str) -> None:
    """Registers a command; its docstring is its help, lines filled but for indented ones."""
    app.command(help=_filled(inspect.getdoc(command) or ""), rich_help_panel=panel)(command)


# In the order of the screen.
_add(predict, "Structures")
_add(relax, "Structures")
_add(eos, "Properties")
_add(elastic, "Properties")
_add(phonons, "Properties")
_add(md, "Properties")
_add(neb, "Properties")
_add(finetune, "Models")
_add(train, "Models")
_add(tune, "About")
_add(info, "About")
