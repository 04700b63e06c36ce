"""`fastchgnet eos`: equilibrium volume and bulk modulus of crystals."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import Device, Dtype, Files, Model, Overwrite, make_calculator
from .properties import NoRelax, Optimizer, OutFolder, compute_each
from .results import Row

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.workflows.equation_of_state import EquationOfState

COLUMNS = (
    ("n_atoms", "atoms", "", "d"),
    ("volume_A3_per_atom", "V₀/atom", "Å³", "z.3f"),
    ("energy_eV_per_atom", "E₀/atom", "eV", "z.4f"),
    ("bulk_modulus_GPa", "B₀", "GPa", "z.1f"),
    ("bulk_modulus_derivative", "B₀'", "", "z.2f"),
    ("residual_meV_per_atom", "residual", "meV/atom", "z.3f"),
)


def eos(
    files: Files,
    no_relax: NoRelax = False,
    fixed_ions: Annotated[
        bool, typer.Option("--fixed-ions", metavar="", help="Do not relax the atoms at each volume.")
    ] = False,
    max_strain: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the length by which lattice vectors change, each way.")
    ] = 0.03,
    points: Annotated[int, typer.Option(metavar="N", help="Number of volumes.")] = 11,
    kind: Annotated[
        Literal["birchmurnaghan", "vinet", "murnaghan", "birch", "pouriertarantola"],
        typer.Option(metavar="NAME", help="birchmurnaghan, vinet, murnaghan, birch, pouriertarantola."),
    ] = "birchmurnaghan",
    fmax: Annotated[float, typer.Option(metavar="EV/Å", help="Of all relaxations.")] = 0.01,
    optimizer: Optimizer = "LBFGS",
    out: OutFolder = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Equation of state: equilibrium volume, bulk modulus and its derivative.

    Examples:
      fastchgnet eos POSCAR
      fastchgnet eos *.cif --out eos/ --kind vinet
      fastchgnet eos POSCAR --max-strain 0.05 --points 15

    Atoms and cell are relaxed first. Then the cell keeps its shape, and the atoms are relaxed at each volume. The
    folder gets the fit (eos.json), the points, a figure and the relaxed structure. Moduli are in GPa, volumes in Å³.
    """
    from ase_fastchgnet.workflows.equation_of_state import FILES, eos

    calculator = make_calculator(model, device, dtype)

    def compute(atoms: "Atoms") -> "EquationOfState[Atoms]":
        return eos(
            atoms,
            calculator,
            relax=not no_relax,
            relax_ions=not fixed_ions,
            max_strain=max_strain,
            points=points,
            kind=kind,
            fmax=fmax,
            optimizer=optimizer,
        )

    compute_each(files, compute, _row, COLUMNS, out=out, names=FILES, overwrite=overwrite)


def _row(found: "EquationOfState[Atoms]") -> Row:
    n = len(found.structure)
    return {
        "n_atoms": n,
        "volume_A3_per_atom": found.volume / n,
        "energy_eV_per_atom": found.energy / n,
        "bulk_modulus_GPa": found.bulk_modulus,
        "bulk_modulus_derivative": found.bulk_modulus_derivative,
        "residual_meV_per_atom": 1000 * found.residual,
    }
