"""`fastchgnet elastic`: elastic constants of crystals."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Dtype, Files, Model, Overwrite, make_calculator
from .properties import NoRelax, Optimizer, OutFolder, compute_each
from .results import Row

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.workflows.elasticity import Elasticity

COLUMNS = (
    ("n_atoms", "atoms", "", "d"),
    ("bulk_modulus_hill_GPa", "bulk", "GPa", "z.1f"),
    ("shear_modulus_hill_GPa", "shear", "GPa", "z.1f"),
    ("youngs_modulus_GPa", "Young's", "GPa", "z.1f"),
    ("poisson_ratio", "Poisson", "", "z.3f"),
    ("universal_anisotropy", "anisotropy", "", "z.3f"),
    ("lowest_eigenvalue_GPa", "stable if > 0", "GPa", "z.1f"),
)


def elastic(
    files: Files,
    no_relax: NoRelax = False,
    fixed_ions: Annotated[
        bool, typer.Option("--fixed-ions", metavar="", help="Do not relax the atoms in strained cells.")
    ] = False,
    max_strain: Annotated[
        float, typer.Option(metavar="STRAIN", help="Each strain has this size and half of it, both ways.")
    ] = 0.01,
    fmax: Annotated[float, typer.Option(metavar="EV/Å", help="Of all relaxations.")] = 1e-4,
    optimizer: Optimizer = "LBFGS",
    out: OutFolder = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float64",
) -> None:
    """Elastic constants, moduli and mechanical stability.

    Examples:
      fastchgnet elastic POSCAR --out elastic/
      fastchgnet elastic *.cif --out elastic/

    Atoms and cell are relaxed first, within their space group; then the cell is strained in all ways that symmetry does
    not make equal, and the atoms are relaxed in each. Constants are in GPa, in the Cartesian axes of the file, in the
    order xx yy zz yz xz xy. The folder gets elastic.json and the relaxed structure.
    """
    from ase_fastchgnet.workflows.elasticity import FILES, elastic

    calculator = make_calculator(model, device, dtype)

    def compute(atoms: "Atoms") -> "Elasticity[Atoms]":
        return elastic(
            atoms,
            calculator,
            relax=not no_relax,
            relax_ions=not fixed_ions,
            strains=[share * max_strain for share in (-1, -0.5, 0.5, 1)],
            fmax=fmax,
            optimizer=optimizer,
        )

    compute_each(files, compute, _row, COLUMNS, out=out, names=FILES, overwrite=overwrite)


def _row(found: "Elasticity[Atoms]") -> Row:
    return {
        "n_atoms": len(found.structure),
        "spacegroup": found.spacegroup,
        **found.moduli(),
        "lowest_eigenvalue_GPa": float(found.eigenvalues[0]),
        "asymmetry_GPa": found.asymmetry,
    }
