"""ASE's filter for relaxing the cell, asked once for each geometry."""

from typing import Any

import numpy as np
from ase.filters import FrechetCellFilter


class CellFilter(FrechetCellFilter):
    """FrechetCellFilter that remembers the forces of the present geometry.

    ASE's optimisers ask for them three times a step, and each time costs some 4 ms of matrix logarithms and
    exponentials: as much as the model itself takes for a small crystal in a batch.
    """

    _key: bytes | None = None

    def get_forces(self, **kwargs: Any) -> np.ndarray:
        """Forces on atoms and cell (n_atoms + 3, 3), eV/Å."""
        key = self.atoms.positions.tobytes() + self.atoms.cell.array.tobytes()
        if kwargs or key != self._key:
            self._forces: np.ndarray = super().get_forces(**kwargs)  # type: ignore[no-untyped-call]
            self._key = None if kwargs else key
        return self._forces.copy()
