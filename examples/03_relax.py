"""How to relax the atoms and the cell of a crystal together, and save the result."""

import argparse
from pathlib import Path

from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import LBFGS
from ase.units import GPa

from ase_fastchgnet import FastCHGNet

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-n", "--steps", type=int, default=200, help="at most so many steps")
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the result")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

atoms = read(Path(__file__).parent / "structures" / "LiMnO2.cif")
atoms.set_cell(atoms.cell * 1.04, scale_atoms=True)  # something to do
atoms.rattle(0.1, seed=1)
atoms.calc = FastCHGNet()


def describe(label: str) -> None:
    energy, pressure = atoms.get_potential_energy() / len(atoms), -atoms.get_stress()[:3].mean() / GPa
    print(f"{label}: {energy:.4f} eV/atom, {atoms.get_volume() / len(atoms):.3f} Å³/atom, {pressure:.2f} GPa")


describe("distorted")
optimizer = LBFGS(FrechetCellFilter(atoms), logfile=options.out / "relax.log")
converged = optimizer.run(fmax=0.01, steps=options.steps)  # eV/Å; of the cell too
print(f"{'converged' if converged else 'stopped'} after {optimizer.nsteps} steps")
describe("relaxed")
write(options.out / "LiMnO2_relaxed.cif", atoms)
print(f"written: {options.out / 'LiMnO2_relaxed.cif'}")

# Expected output:
# distorted: -7.1979 eV/atom, 10.903 Å³/atom, -8.20 GPa
# converged after … steps
# relaxed: -7.3680 eV/atom, 9.709 Å³/atom, 0.00 GPa
# written: demo_out/LiMnO2_relaxed.cif
