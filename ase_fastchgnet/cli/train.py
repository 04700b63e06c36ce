"""`fastchgnet train` and `fastchgnet finetune`: CHGNet on one's own data.

The settings are those of TrainConfig, and so are the options for them: their names, types, defaults and help.
"""

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from ase_fastchgnet.training.config import FINETUNE, TrainConfig

from .inputs import read_structures
from .options import Device, Overwrite
from .report import Report, complain

if TYPE_CHECKING:
    from ase import Atoms

_SETTINGS = "Settings"

Data = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA", help="Files of labelled structures: extxyz, .db, chgnet's .json.", show_default=False
    ),
]
Run = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="For all that the run makes.", rich_help_panel="Output")
]
Validation = Annotated[
    str,
    typer.Option(
        metavar="FILE|SHARE",
        help="What the best epoch is chosen by, or a share of DATA.",
        rich_help_panel="Data",
    ),
]
Test = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FILE",
        help="Errors of it before and after; may be repeated.",
        show_default=False,
        rich_help_panel="Data",
    ),
]
Replay = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Structures that the model is to keep its opinion of; may be repeated.",
        show_default=False,
        rich_help_panel="Data",
    ),
]
NoCheck = Annotated[
    bool, typer.Option("--no-check", metavar="", help="Take labels as they are.", rich_help_panel="Data")
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A config.json; options change it.", show_default=False, rich_help_panel=_SETTINGS
    ),
]
SaveEvery = Annotated[
    float, typer.Option(metavar="S", min=0, help="Seconds between two states.", rich_help_panel="Output")
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on where --out was left.", rich_help_panel="Output")
]


def with_settings(defaults: TrainConfig) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each setting; what is given of them arrives as its `settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [_option(name, hint, help, getattr(defaults, name)) for name, hint, help in _settings()]
        command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return command

    return decorate


def _settings() -> list[tuple[str, Any, str]]:
    """Name, type and help of each setting."""
    hints = typing.get_type_hints(TrainConfig)
    return [(field.name, hints[field.name], field.metadata["help"]) for field in fields(TrainConfig)]


def _option(name: str, hint: Any, help: str, default: Any) -> inspect.Parameter:
    """None where it is not given, so that a --config counts; the help shows the default."""
    if get_origin(hint) is tuple:
        hint = list[str]
    if default not in (None, ()):
        help = f"{help} [dim]\\[default: {default}][/dim]"
    kind = {float: "X", list[str]: "LAYER"}.get(hint, "N")
    if get_origin(hint) is Literal:
        kind = "|".join(get_args(hint))
    info = typer.Option(metavar=kind, help=help, show_default=False, rich_help_panel=_SETTINGS)
    annotation = Annotated[hint | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@with_settings(TrainConfig())
def train(
    data: Data,
    out: Run,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="Whose weights to start from; else random.", show_default=False
        ),
    ] = None,
    validation: Validation = "0.1",
    test: Test = None,
    no_check: NoCheck = False,
    config: Config = None,
    save_every: SaveEvery = 60.0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = None,
    **settings: Any,
) -> None:
    """Train CHGNet on labelled structures.

    Examples:
      fastchgnet train data.extxyz --out run/
      fastchgnet train data.extxyz --out run/ --resume
      fastchgnet train MPtrj.json --out direct/ --forces direct --batch-size 128
      fastchgnet train MPtrj.json --out final/ --model direct/model.safetensors
      torchrun --nproc-per-node 4 -m ase_fastchgnet train data.extxyz --out run/

    Labels are energies (eV, of the whole structure), forces (eV/Å), stresses (eV/Å³, tension positive) and magnetic
    moments (μB); any of them may be missing. The best epoch by validation is kept in model.safetensors, which --model
    of every other command takes. A run that was interrupted or killed goes on with the same command and --resume.

    Direct forces train more than twice as fast. The way to the most accurate conservative model for the time: train
    with --forces direct first, then go on from that model with conservative ones.
    """
    chosen = _config(TrainConfig(), config, settings)
    files = {"validation": validation, "test": test, "out": out, "resume": resume, "overwrite": overwrite}
    _run(chosen, data, model, None, **files, check=not no_check, save_every=save_every, device=device)


@with_settings(FINETUNE)
def finetune(
    data: Data,
    out: Run,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="0.3.0, 0.2.0, r2scan, or a checkpoint file.")
    ] = "0.3.0",
    validation: Validation = "0.1",
    test: Test = None,
    replay: Replay = None,
    no_check: NoCheck = False,
    config: Config = None,
    save_every: SaveEvery = 60.0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = None,
    **settings: Any,
) -> None:
    """Fine-tune a trained model on your own DFT data.

    Examples:
      fastchgnet finetune data.extxyz --out mine/
      fastchgnet predict POSCAR --model mine/model.safetensors
      fastchgnet finetune data.extxyz --out mine/ --test other.extxyz --replay crystals.extxyz
      fastchgnet finetune data.extxyz --out mine/ --freeze atom_embedding --freeze atom_conv_layers.0

    Energies of the elements are fitted to the data first (--reference-energies keep: they stay), because other settings
    of DFT shift them. What the model knew before it forgets in part, and --test shows how much. Against that, --replay
    takes structures, without labels, of the kinds that the model should stay right for; and --freeze keeps layers.
    Everything is in --out: settings, logs (CSV, TensorBoard), pictures, and model.safetensors.
    """
    chosen = _config(FINETUNE, config, settings)
    files = {"validation": validation, "test": test, "out": out, "resume": resume, "overwrite": overwrite}
    _run(chosen, data, model, replay, **files, check=not no_check, save_every=save_every, device=device)


def _config(defaults: TrainConfig, file: Path | None, settings: Mapping[str, Any]) -> TrainConfig:
    """The defaults, or what a file says, with what was given on the command line."""
    try:
        base = defaults if file is None else TrainConfig.read(file, missing=defaults)
        return base.but(**{name: value for name, value in settings.items() if value is not None})
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="'--config'" if file else None) from error


def _run(
    config: TrainConfig, data: Sequence[Path], model: str | None, replay: Sequence[str] | None, **options: Any
) -> None:
    """Trains, and shows what has become of it; what is wrong with the command is said before anything is read."""
    if options["resume"] and options["overwrite"]:
        raise typer.BadParameter("goes on with what is there, and --overwrite replaces it", param_hint="'--resume'")
    options["validation"] = _validation(options["validation"])
    options["test"] = _tests(options["test"] or [])
    _require_files(data, "DATA")
    _require_files(options["test"].values(), "--test")
    from ase_fastchgnet.model.checkpoint import load_checkpoint
    from ase_fastchgnet.training.run import train

    try:
        start = None if model is None else load_checkpoint(model)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="'--model'") from error
    with Report("replayed") as report:
        structures: list[Atoms] = [one.atoms for one in read_structures(replay or [], report)]
    try:
        done = train(data, config=config, model=start, replay=structures, progress=None, **options)
    except FileExistsError as error:
        raise typer.BadParameter(f"{error} (--resume, --overwrite)", param_hint="'--out'") from error
    except KeyboardInterrupt:
        complain(f"stopped; the same command with --resume goes on from the last state in {options['out']}")
        raise
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun has started, one speaks
        print(done)
        complain(f"written: {options['out']}")


def _validation(value: str) -> Path | float:
    """A share, or a file."""
    try:
        share = float(value)
    except ValueError:
        _require_files([Path(value)], "--validation")
        return Path(value)
    if not 0 <= share < 1:
        raise typer.BadParameter(f"{value} is no share from 0 up to 1, nor a file", param_hint="'--validation'")
    return share


def _tests(values: Sequence[str]) -> dict[str, Path]:
    """By the names given, or those of the files without what comes after the first dot."""
    found: dict[str, Path] = {}
    for value in values:
        name, _, file = value.rpartition("=")
        name = name or Path(file).name.split(".")[0]
        if name in (*found, "training", "validation"):
            raise typer.BadParameter(f"the name {name!r} is taken; use NAME=FILE", param_hint="'--test'")
        found[name] = Path(file)
    return found


def _require_files(paths: Iterable[Path], option: str) -> None:
    for path in paths:
        if not path.is_file():
            raise typer.BadParameter(f"{path}: no such file", param_hint=f"'{option}'")
