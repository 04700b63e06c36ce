"""`fastchgnet neb`: the barrier between two structures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .inputs import read_structure
from .options import Device, Dtype, Model, Overwrite, make_calculator, out_option
from .outputs import atomic_folder, check_folder
from .report import complain, warnings_name


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
    out: Annotated[Path | None, out_option("A folder for neb.json, neb.csv, neb.png and images.extxyz.")] = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Minimum-energy path between two structures, and its barrier.

    Examples:
      fastchgnet neb before.cif after.cif --relax-ends --out hop/
      fastchgnet neb relaxed.traj@0 relaxed.traj@1 --images 7 --fmax 0.02

    Nudged elastic band with a climbing image; all images of a step are one batch. Both ends have the same cell, and
    should be minima: otherwise use --relax-ends. Energies are in eV, the path in Å through all moving atoms. Exit
    status 1 if the band does not converge; what it has reached is written all the same.
    """
    from ase_fastchgnet.workflows.elastic_band import FILES, neb

    if out is not None:
        check_folder(out, FILES, overwrite=overwrite)
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
    print(band)
    if out is not None:
        with atomic_folder(out) as unfinished:
            band.write(unfinished)
    if not band.converged:
        complain(f"error: not converged after {band.n_steps} steps, forces up to {band.fmax:.3f} eV/Å; raise --steps")
        raise typer.Exit(1)
    complain(f"converged after {band.n_steps} steps")
