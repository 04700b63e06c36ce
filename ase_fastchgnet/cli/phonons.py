"""`fastchgnet phonons`: bands, densities of states and thermal properties of crystals."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import Device, Dtype, Files, Model, Overwrite, make_calculator
from .properties import NoRelax, OutFolder, compute_each
from .results import Row

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.workflows.lattice_dynamics import Phonons

COLUMNS = (
    ("n_atoms", "atoms", "", "d"),
    ("n_displacements", "displaced", "supercells", "d"),
    ("highest_THz", "highest", "THz", "z.2f"),
    ("lowest_THz", "lowest", "THz", "z.2f"),
    ("zero_point_meV_per_atom", "zero-point", "meV/atom", "z.2f"),
)


def phonons(
    files: Files,
    no_relax: NoRelax = False,
    fmax: Annotated[float, typer.Option(metavar="EV/Å", help="Of the relaxation.")] = 1e-4,
    supercell: Annotated[
        str, typer.Option(metavar="Å|AxBxC", help="Least thickness in Å, or repeats such as 3x3x2.")
    ] = "12",
    displacement: Annotated[float, typer.Option(metavar="Å", help="How far atoms are displaced.")] = 0.01,
    fc_calculator: Annotated[
        Literal["traditional", "symfc"],
        typer.Option(metavar="traditional|symfc", help="Force constants by phonopy itself, or by symfc."),
    ] = "traditional",
    mesh: Annotated[float, typer.Option(metavar="Å", help="Fineness of the q-points: 2π/mesh apart.")] = 40.0,
    max_temperature: Annotated[float, typer.Option(metavar="K", help="Of the thermal properties.")] = 1000.0,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float64",
) -> None:
    """Phonons: bands, densities of states, thermal properties, by phonopy.

    Examples:
      fastchgnet phonons POSCAR --out phonons/
      fastchgnet phonons *.cif --out phonons/ --supercell 15
      fastchgnet phonons relaxed.cif --no-relax --supercell 4x4x4

    Atoms and cell are relaxed first, within their space group; give the primitive cell, it is cheaper. The folder gets
    phonopy_params.yaml (for phonopy itself), figures and tables of bands, densities of states and thermal properties,
    and the relaxed structure.

    Frequencies are in THz. Imaginary ones are reported, and are negative numbers in tables and figures. There is no
    splitting of longitudinal and transverse optical modes: CHGNet knows no charges.
    """
    size = _supercell(supercell)
    import numpy as np

    from ase_fastchgnet.workflows.lattice_dynamics import FILES, phonons

    calculator = make_calculator(model, device, dtype)

    def compute(atoms: "Atoms") -> "Phonons[Atoms]":
        return phonons(
            atoms,
            calculator,
            relax=not no_relax,
            fmax=fmax,
            supercell=size,
            displacement=displacement,
            fc_calculator=fc_calculator,
            mesh=mesh,
            temperatures=np.linspace(0, max_temperature, 101).tolist(),
        )

    compute_each(files, compute, _row, COLUMNS, out=out, names=FILES, overwrite=overwrite)


def _row(found: "Phonons[Atoms]") -> Row:
    return {
        "n_atoms": len(found.structure),
        "n_displacements": len(found.phonopy.supercells_with_displacements),
        "highest_THz": max(float(band.frequencies.max()) for band in found.bands),
        "lowest_THz": min(float(band.frequencies.min()) for band in found.bands),
        "imaginary_share": found.imaginary_share,
        "zero_point_meV_per_atom": 1000 * found.thermal.zero_point_energy,
    }


def _supercell(text: str) -> float | list[int]:
    try:
        if "x" in text:
            a, b, c = map(int, text.split("x"))
            return [a, b, c]
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give a length in Å such as 12, or repeats such as 3x3x2") from None
