"""The structures that the benchmarks measure, by name: `SYSTEMS["LiMnO2-512"]()`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.io import read

LIMNO2 = Path(__file__).parents[1] / "examples" / "structures" / "LiMnO2.cif"
RATTLE = 0.03  # Å: about the displacements of a first picosecond at 300 K; no two bonds are equal


def crystal(name: str, repeat: int) -> Atoms:
    """`repeat`³ conventional cells of a crystal, rattled by a fixed seed."""
    if name == "LiMnO2":
        cell = read(LIMNO2)
        assert isinstance(cell, Atoms)
    else:
        structure, a = {"Si": ("diamond", 5.43), "MgO": ("rocksalt", 4.212), "Cu": ("fcc", 3.61)}[name]
        cell = bulk(name, structure, a=a, cubic=True)
    atoms: Atoms = cell.repeat(repeat)
    atoms.rattle(RATTLE, seed=repeat)
    return atoms


SYSTEMS: dict[str, Callable[[], Atoms]] = {
    "LiMnO2-8": partial(crystal, "LiMnO2", 1),
    "LiMnO2-64": partial(crystal, "LiMnO2", 2),
    "LiMnO2-512": partial(crystal, "LiMnO2", 4),
    "LiMnO2-4096": partial(crystal, "LiMnO2", 8),
    "Si-64": partial(crystal, "Si", 2),
    "Si-512": partial(crystal, "Si", 4),
    "MgO-64": partial(crystal, "MgO", 2),
    "MgO-512": partial(crystal, "MgO", 4),
    "Cu-32": partial(crystal, "Cu", 2),
    "Cu-500": partial(crystal, "Cu", 5),
}


def chosen(names: Sequence[str]) -> dict[str, Atoms]:
    """The named structures, built."""
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise SystemExit(f"unknown systems {', '.join(unknown)}; known are {', '.join(SYSTEMS)}")
    return {name: SYSTEMS[name]() for name in names}
