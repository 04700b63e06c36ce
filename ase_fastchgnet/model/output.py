"""What every backend returns."""

from typing import NamedTuple

from torch import Tensor


class ModelOutput(NamedTuple):
    """Predictions for a batch, in Å, eV and μ_B, float64; embeddings have the dtype of the model."""

    atom_energies: Tensor  # (atoms,) eV, reference energies included; a system's energy is their sum
    magmoms: Tensor  # (atoms,) μ_B, absolute values
    site_embeddings: Tensor  # (atoms, 64) before the last interaction block ("atom_fea" in stock)
    final_embeddings: Tensor  # (atoms, 64) that energies are read from; summed over a system stock's "crystal_fea"
    forces: Tensor | None  # (atoms, 3) eV/Å; None if no gradient was asked for
    virial: Tensor | None  # (systems, 3, 3) eV, ∂E/∂strain; stress = virial / volume
