"""A crystal whose energy is known in closed form: fast, exact, and with every property a workflow may ask for."""

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.units import GPa

from ase_fastchgnet.calculator import changes


class ElasticCrystal(Calculator):
    """Each atom on a spring to its site; sites follow the cell, which resists changes of volume and shape.

    With h = h₀ F the cell (rows), d the way of an atom from its site, and E = (F Fᵀ - 1)/2:
    energy = ½ k Σ d² + ½ B V₀ (V/V₀ - 1)² + G V₀ Σ E².  The springs have no stiffness in a strain of cell and atoms.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, atoms: Atoms, *, k: float = 4.0, bulk_modulus: float = 140.0, shear: float = 60.0) -> None:
        """`atoms` are at rest; k in eV/Å², moduli in GPa."""
        super().__init__()
        self._cell, self._sites = atoms.cell.array.copy(), atoms.get_scaled_positions(wrap=False)
        self._volume = atoms.cell.volume
        self.k, self.bulk_modulus, self.shear = k, bulk_modulus * GPa, shear * GPa
        self.evaluations = 0

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """As in FastCHGNet: ASE's own comparison costs more than all the rest."""
        del tol
        return changes(self.atoms, atoms)

    def calculate(
        self, atoms: Atoms | None = None, properties: Iterable[str] = (), system_changes: Iterable[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.evaluations += 1
        away = atoms.positions - self._sites @ atoms.cell.array
        strain = np.linalg.solve(self._cell, atoms.cell.array)
        ratio = np.linalg.det(strain)
        green = (strain @ strain.T - np.eye(3)) / 2
        volume = self._volume * ratio
        elastic = self.bulk_modulus / 2 * (ratio - 1) ** 2 + self.shear * (green**2).sum()
        stress = self.bulk_modulus * (ratio - 1) * np.eye(3) + 2 * self.shear / ratio * strain.T @ green @ strain
        stress += self.k * away.T @ away / volume
        self.results = {
            "energy": float(self.k / 2 * (away**2).sum() + elastic * self._volume),
            "forces": -self.k * away,
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


def salt(repeat: int = 1) -> Atoms:
    """Eight atoms of NaCl, or `repeat`³ times as many, in a cell that is no cube, so that shapes can be told apart."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.02, 0], [0, 1.01, 0], [0, 0.03, 0.99]], scale_atoms=True)
    return atoms.repeat(repeat)
