"""`fastchgnet neb`: the barrier between two structures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .inputs import read_structure
from .options import Device, Dtype, Model, Overwrite, make_calculator, out_option
from .outputs import atomic, check_free, check_suffix
from .report import complain, warnings_name
from .results import RESULT_SUFFIXES, print_table, results_file, row_of

COLUMNS = (
    ("distance_A", "path", "Å", ".3f"),
    ("energy_eV", "energy", "eV", "z.4f"),
    ("relative_eV", "above first", "eV", "z.4f"),
    ("max_force_eV_A", "max |F|", "eV/Å", "z.3f"),
)
PICTURES = (".png", ".pdf", ".svg")


def neb(
    initial: Annotated[str, typer.Argument(metavar="INITIAL", help="Where the path starts.", show_default=False)],
    final: Annotated[
        str,
        typer.Argument(metavar="FINAL", help="Where it ends: the same atoms in the same order.", show_default=False),
    ],
    images: Annotated[int, typer.Option(metavar="N", min=1, help="Images between the two.")] = 5,
    relax_ends: Annotated[
        bool, typer.Option("--relax-ends", metavar="", help="Relax the atoms of both ends first.")
    ] = False,
    fmax: Annotated[float, typer.Option(metavar="EV/Å", help="Done when no force on the band is larger.")] = 0.05,
    steps: Annotated[int, typer.Option(metavar="N", min=0, help="At most so many.")] = 500,
    interpolation: Annotated[
        Literal["idpp", "linear"], typer.Option(metavar="idpp|linear", help="The path to start from.")
    ] = "idpp",
    climb: Annotated[
        bool, typer.Option("--climb/--no-climb", metavar="", help="The highest image climbs to the saddle point.")
    ] = True,
    spring: Annotated[float, typer.Option(metavar="EV/Å²", help="Between neighbouring images.")] = 0.1,
    optimizer: Annotated[
        Literal["FIRE", "FIRE2", "BFGS", "LBFGS", "MDMin"],
        typer.Option(metavar="NAME", help="FIRE, FIRE2, BFGS, LBFGS or MDMin of ASE."),
    ] = "FIRE",
    out: Annotated[Path | None, out_option(f"Write all images: {', '.join(RESULT_SUFFIXES)}.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help=f"Draw the path: {', '.join(PICTURES)}.", rich_help_panel="Output"),
    ] = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Minimum-energy path between two structures, and its barrier.

    Examples:
      fastchgnet neb before.cif after.cif --relax-ends --out band.extxyz
      fastchgnet neb relaxed.traj@0 relaxed.traj@1 --images 7 --plot barrier.png

    Nudged elastic band with a climbing image; all images of a step are one batch. Both ends have the same cell, and
    should be minima: otherwise use --relax-ends. Energies are in eV, the path in Å through all moving atoms. Exit
    status 1 if the band does not converge; what it has reached is written all the same.
    """
    if out is not None:
        check_suffix(out, RESULT_SUFFIXES)
        check_free(out, overwrite=overwrite)
    if plot is not None:
        check_suffix(plot, PICTURES, option="--plot")
        check_free(plot, overwrite=overwrite, option="--plot")

    from ase_fastchgnet.workflows.elastic_band import neb

    ends = read_structure(initial), read_structure(final)
    calculator = make_calculator(model, device, dtype)
    with warnings_name([f"{initial} to {final}"]):
        band = neb(
            *ends,
            calculator,
            images=images,
            relax_ends=relax_ends,
            fmax=fmax,
            steps=steps,
            interpolation=interpolation,
            climb=climb,
            spring=spring,
            optimizer=optimizer,
        )
    rows = []
    for n, frame in enumerate(band.frames):
        name = initial if n == 0 else final if n == len(band.frames) - 1 else f"image {n}"
        along = {"distance_A": band.distances[n], "relative_eV": band.energies[n] - band.energies[0]}
        rows.append(row_of(name, frame) | along)
    print_table(rows, COLUMNS)
    print(f"\nbarrier {band.barrier:.3f} eV, in reverse {band.reverse_barrier:.3f} eV")
    if out is not None:
        with results_file(out) as add:
            for frame, row in zip(band.frames, rows, strict=True):
                add(frame, row)
    if plot is not None:
        figure, _ = band.plot()
        with atomic(plot) as unfinished:
            figure.savefig(unfinished, dpi=200)
    if not band.converged:
        complain(f"error: not converged after {band.n_steps} steps, forces up to {band.fmax:.3f} eV/Å; raise --steps")
        raise typer.Exit(1)
    complain(f"converged after {band.n_steps} steps")
