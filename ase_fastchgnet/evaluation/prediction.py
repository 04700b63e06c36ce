"""Prediction: the results for one structure, in numpy and ASE's units; ModelOutput → Predictions."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.output import ModelOutput

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What CHGNet says of one structure; float64, in ASE's units."""

    energy: float  # eV, whole structure
    energies: Array  # (n_atoms,) eV, their sum is the energy
    magmoms: Array  # (n_atoms,) μ_B, absolute values
    forces: Array | None  # (n_atoms, 3) eV/Å; None if neither forces nor stress were asked for
    stress: Array | None  # (6,) xx yy zz yz xz xy, eV/Å³, tension positive; None without a 3-D periodic cell too

    def results(self) -> dict[str, Any]:
        """The values under ASE's names; what was not computed is left out."""
        values = {
            "energy": self.energy,
            "free_energy": self.energy,  # CHGNet has no electronic temperature
            "energies": self.energies,
            "forces": self.forces,
            "stress": self.stress,
            "magmoms": self.magmoms,
            "magmom": float(self.magmoms.sum()),
        }
        return {name: value for name, value in values.items() if value is not None}


def predictions_of(graph: GraphBatch, output: ModelOutput) -> list[Prediction]:
    """One Prediction for each system of the batch, in order; nothing shares memory with `output`."""
    energies, magmoms = _rows(output.atom_energies), _rows(output.magmoms)
    forces = None if output.forces is None else _rows(output.forces)
    virial = None if output.virial is None else _rows(output.virial)
    cell, pbc, atom_ptr = _rows(graph.cell), graph.pbc.cpu().numpy(), graph.atom_ptr.tolist()
    return [
        prediction_of(
            energies[start:end],
            magmoms[start:end],
            None if forces is None else forces[start:end],
            None if virial is None else virial[system],
            cell[system],
            pbc[system],
        )
        for system, (start, end) in enumerate(itertools.pairwise(atom_ptr))
    ]


def prediction_of(
    energies: Array, magmoms: Array, forces: Array | None, virial: Array | None, cell: Array, pbc: NDArray[np.bool_]
) -> Prediction:
    """Of one system, whose virial (3, 3) is in eV and cell (3, 3) in Å; arrays are copied."""
    return Prediction(
        energy=float(energies.sum()),
        energies=energies.copy(),
        magmoms=magmoms.copy(),
        forces=None if forces is None else forces.copy(),
        stress=stress_of(virial, cell) if virial is not None and pbc.all() else None,
    )


def stress_of(virial: Array, cell: Array) -> Array:
    """Stress (6,) in Voigt order xx yy zz yz xz xy, eV/Å³, tension positive: ∂E/∂strain per volume."""
    # The model is invariant under rotation, so the two halves differ by rounding only.
    s = (virial + virial.T) / (2 * abs(np.linalg.det(cell)))
    return np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


def _rows(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy().astype(np.float64, copy=False)
    return array
