"""How to relax the atoms and the cell of a crystal, see how it went, and relax many crystals at once."""

import argparse
from pathlib import Path

from ase.build import bulk
from ase.io import read
from ase.units import GPa

from ase_fastchgnet import relax, relax_many

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-n", "--steps", type=int, default=500, help="at most so many steps")
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the result")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

atoms = read(Path(__file__).parent / "structures" / "LiMnO2.cif")
atoms.set_cell(atoms.cell * 1.04, scale_atoms=True)  # something to do
atoms.rattle(0.1, seed=1)

result = relax(atoms, fmax=0.01, steps=options.steps)  # eV/Å; of the cell too
print(f"{'converged' if result.converged else 'stopped'} after {result.n_steps} steps")
for label, frame in ("distorted", result.frames[0]), ("relaxed", result.frames[-1]):
    pressure = -frame.get_stress()[:3].mean() / GPa
    print(f"{label}: {frame.get_potential_energy() / len(frame):.4f} eV/atom, {pressure:.2f} GPa")
result.write(options.out / "LiMnO2_relaxed.cif")
figure, _ = result.plot()
figure.savefig(options.out / "LiMnO2_relaxation.png", dpi=150)
print(f"written: {options.out}/LiMnO2_relaxed.cif, LiMnO2_relaxation.png")

# Many structures advance together, each with its own optimiser; what cannot be relaxed is an error in the list.
halides = {"LiF": 4.0, "LiCl": 5.1, "NaCl": 5.6, "KBr": 6.6, "CsF": 6.0}
results = relax_many([bulk(name, "rocksalt", a=a) for name, a in halides.items()], fmax=0.01, steps=options.steps)
for name, relaxed in zip(halides, results, strict=True):
    if isinstance(relaxed, Exception):
        print(f"{name}: {relaxed}")
    else:
        print(f"{name}: a = {(4 * relaxed.structure.cell.volume) ** (1 / 3):.3f} Å, {relaxed.energy / 2:.3f} eV/atom")

# Expected output:
# converged after … steps
# distorted: -7.1979 eV/atom, -8.20 GPa
# relaxed: -7.3680 eV/atom, 0.04 GPa
# written: demo_out/LiMnO2_relaxed.cif, LiMnO2_relaxation.png
# LiF: a = 4.094 Å, -5.050 eV/atom
# LiCl: a = 5.147 Å, -3.981 eV/atom
# NaCl: a = 5.701 Å, -3.668 eV/atom
# KBr: a = 6.726 Å, -3.403 eV/atom
# CsF: a = 6.151 Å, -4.227 eV/atom
