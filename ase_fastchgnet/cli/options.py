"""Options that commands share, and the calculator they describe."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from ase_fastchgnet.calculator import FastCHGNet

_MODEL = "Model"
_OUTPUT = "Output"

Files = Annotated[
    list[str], typer.Argument(metavar="FILES", help="Structures: files, FILE@INDEX or globs.", show_default=False)
]
File = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A structure; of several frames the last, or FILE@INDEX.", show_default=False),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME", help="0.3.0, 0.2.0, r2scan, or a checkpoint file.", rich_help_panel=_MODEL
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        envvar="FASTCHGNET_DEVICE",
        help="cpu, cuda or cuda:N. Without it, CUDA if there is one.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="auto|N|LIST",
        help="Worker processes: one per GPU, or else per core; N on the cores; or cuda:0,cuda:1.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Dtype = Annotated[
    Literal["float32", "float64"], typer.Option("--dtype", help="Precision of the network.", rich_help_panel=_MODEL)
]
Tf32 = Annotated[
    bool,
    typer.Option(
        "--tf32",
        metavar="",
        help="Products of factors rounded to 11 bits: faster, on GPUs only, with the errors of docs/accuracy.md.",
        rich_help_panel=_MODEL,
    ),
]
Forces = Annotated[
    Literal["conservative", "direct"],
    typer.Option(
        "--forces",
        metavar="KIND",
        help="conservative: exact; direct: predicted, faster, with errors that the model's card states.",
        rich_help_panel=_MODEL,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace files that exist.", rich_help_panel=_OUTPUT)
]


def out_option(help: str) -> object:
    """The `--out` of a command whose `help` names the suffixes it takes: `Annotated[Path | None, out_option(…)]`."""
    return typer.Option("--out", "-o", metavar="PATH", help=help, show_default=False, rich_help_panel=_OUTPUT)


Out = Annotated[Path | None, out_option("Where to write the result.")]


def devices_of(devices: str | None) -> Any:
    """What `--devices` says, as the workflows take it."""
    if devices is None or devices == "auto":
        return devices
    return int(devices) if devices.isdigit() else devices.split(",")


def make_calculator(
    model: str,
    device: str | None,
    dtype: str,
    devices: str | None = None,
    forces: Literal["conservative", "direct"] = "conservative",
    *,
    tf32: bool = False,
) -> "FastCHGNet":
    """The calculator, its weights loaded and its device looked for: what is wrong with either is wrong usage.

    With `devices`, each worker process has its own device.
    """
    from ase_fastchgnet.calculator import FastCHGNet
    from ase_fastchgnet.evaluation import load_backend
    from ase_fastchgnet.parallel.crew import environments

    if devices is not None and device not in (None, os.environ.get("FASTCHGNET_DEVICE")):
        raise typer.BadParameter("each worker of --devices has its own; give one of the two", param_hint="'--device'")
    try:
        if devices is None:
            load_backend(model, dtype=dtype, device=device, forces=forces, tf32=tf32)
            return FastCHGNet(model, device=device, dtype=dtype, forces=forces, tf32=tf32)
        environments(devices_of(devices))
        calculator = FastCHGNet(model, dtype=dtype, forces=forces, tf32=tf32)
        calculator.chunk_options().for_workers(devices_of(devices))
        return calculator
    except (ValueError, OSError, RuntimeError) as error:  # torch says with RuntimeError that a device is missing
        raise typer.BadParameter(str(error)) from error
