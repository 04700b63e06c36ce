"""How to compute phonons with phonopy: displaced supercells as one batch, in float64."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from ase_fastchgnet import FastCHGNet, evaluate

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

silicon = bulk("Si", cubic=True)
silicon.calc = FastCHGNet(dtype="float64")  # force constants are differences of small forces
LBFGS(FrechetCellFilter(silicon), logfile=None).run(fmax=1e-4)
print(f"Si: lattice constant {silicon.cell[0, 0]:.3f} Å")

cell = PhonopyAtoms(silicon.get_chemical_symbols(), cell=silicon.cell.array, positions=silicon.positions)
phonons = Phonopy(cell, supercell_matrix=[2, 2, 2], primitive_matrix="F")
phonons.generate_displacements(distance=0.01)
displaced = [
    Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True) for s in phonons.supercells_with_displacements
]
phonons.forces = [prediction.forces for prediction in evaluate(displaced, dtype="float64")]
phonons.produce_force_constants()
phonons.symmetrize_force_constants()

phonons.run_mesh([16, 16, 16], is_gamma_center=True)
phonons.run_thermal_properties(temperatures=[300], exclude_gamma_acoustic=True)
phonons.run_total_dos()
print(f"{len(displaced)} displaced supercell(s) of {len(displaced[0])} atoms")
lowest, highest = phonons.mesh.frequencies.min(), phonons.mesh.frequencies.max()
print(f"highest frequency {highest:.2f} THz; {'stable' if lowest > -1e-2 else 'unstable'}")
print(f"heat capacity at 300 K: {phonons.thermal_properties.heat_capacity[0] / 2:.2f} J/K per mole of atoms")

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.fill_between(phonons.total_dos.frequency_points, phonons.total_dos.dos, color="#4477aa", alpha=0.6)
axes.set(xlabel="frequency (THz)", ylabel="states per THz and primitive cell", title="Phonons of silicon, CHGNet 0.3.0")
axes.set_xlim(left=min(0, lowest))  # imaginary frequencies would show as negative ones
axes.set_ylim(bottom=0)
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(options.out / "phonon_dos.png", dpi=150)
phonons.save(options.out / "phonopy.yaml", settings={"force_constants": True})
print(f"written: {options.out / 'phonon_dos.png'}, {options.out / 'phonopy.yaml'}")

# Expected output:
# Si: lattice constant 5.461 Å
# 1 displaced supercell(s) of 64 atoms
# highest frequency 13.12 THz; stable
# heat capacity at 300 K: 20.94 J/K per mole of atoms
# written: demo_out/phonon_dos.png, demo_out/phonopy.yaml
