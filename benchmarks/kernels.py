"""Errors of the Triton kernels in float32 and in TF32, in Triton's interpreter, against the float64 reference.

    TRITON_INTERPRET=1 python -m benchmarks.kernels       writes results/kernels.json; ten minutes

The whole model 0.3.0, every op by its kernel. The interpreter multiplies in float32; with `tf32=True` kernels round
factors themselves, so that errors are those of the hardware but for the order of sums.
"""

import argparse
import warnings
from typing import Any

import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.reference import ReferenceModel
from benchmarks._report import write_result
from fastchgnet_kernels._launch import INTERPRETED
from tests.structures import STRUCTURES

NAMES = ("NaCl", "MgO", "WC", "SrTiO3", "Fe3O4", "LiMnO2 rattled", "LiFePO4", "disordered")
RATTLE = 0.05  # Å


def errors(name: str, atoms: Atoms) -> list[dict[str, Any]]:
    """A row for either precision: the largest error of a component."""
    checkpoint = load_checkpoint("0.3.0")
    graph = build_batch([atoms], Cutoffs())
    exact = ReferenceModel(checkpoint, dtype=torch.float64).evaluate(graph)
    assert exact.forces is not None
    assert exact.virial is not None
    rows = []
    for precision, tf32 in (("float32", False), ("tf32", True)):
        found = Engine(checkpoint, tf32=tf32).evaluate(graph)
        assert found.forces is not None
        assert found.virial is not None
        rows.append(
            {
                "structure": name,
                "atoms": len(atoms),
                "precision": precision,
                "largest_force": float(exact.forces.abs().max()),
                "energy": float((found.atom_energies - exact.atom_energies).sum().abs()) / len(atoms),
                "forces": float((found.forces - exact.forces).abs().max()),
                "stress": float((found.virial - exact.virial).abs().max()) / atoms.get_volume(),
                "magmoms": float((found.magmoms - exact.magmoms).abs().max()),
            }
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(description="Errors of the Triton kernels, in Triton's interpreter.").parse_args()
    if not INTERPRETED:
        raise SystemExit("kernels run on a CPU in Triton's interpreter only: set TRITON_INTERPRET=1")
    warnings.filterwarnings("ignore", "overflow encountered in exp2", RuntimeWarning)  # there σ is 0, as it should be
    rows = []
    print(f"{'':26}energy eV/atom   forces eV/Å  stress eV/Å³  magmoms μ_B")
    for name in NAMES:
        atoms = STRUCTURES[name].copy()
        atoms.rattle(RATTLE, seed=1)
        for row in errors(name, atoms):
            rows.append(row)
            numbers = "".join(f"{row[key]:14.1e}" for key in ("energy", "forces", "stress", "magmoms"))
            print(f"{name:16}{row['precision']:10}{numbers}", flush=True)
    print(f"written: {write_result('kernels', rows)}")


if __name__ == "__main__":
    main()
