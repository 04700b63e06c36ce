"""How to evaluate many structures at once, and how to get bulk moduli from an equation of state."""

import argparse
import csv
import time
from pathlib import Path

from ase.build import bulk
from ase.units import GPa

from ase_fastchgnet import eos, evaluate

CRYSTALS = {"Si": ("diamond", 5.47), "MgO": ("rocksalt", 4.25), "NaCl": ("rocksalt", 5.69), "Cu": ("fcc", 3.63)}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the result")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

structures = {name: bulk(name, kind, a=a) for name, (kind, a) in CRYSTALS.items()}
start = time.perf_counter()
predictions = evaluate(structures.values())  # any number of structures, of any sizes
print(f"{len(structures)} structures in {time.perf_counter() - start:.2f} s")
for (name, atoms), prediction in zip(structures.items(), predictions, strict=True):
    pressure = -prediction.stress[:3].mean() / GPa
    print(f"{name:5} {prediction.energy / len(atoms):.4f} eV/atom, {pressure:.2f} GPa")

with open(options.out / "bulk_moduli.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["crystal", "lattice_constant_A", "bulk_modulus_GPa"])
    for name, atoms in structures.items():
        found = eos(atoms)  # relaxes, strains, evaluates all volumes together, fits
        a = (4 * found.volume) ** (1 / 3)  # all four are face-centred: the primitive cell is a quarter of the cube
        print(f"{name:5} a = {a:.3f} Å, B = {found.bulk_modulus:.0f} GPa, B' = {found.bulk_modulus_derivative:.1f}")
        table.writerow([name, f"{a:.4f}", f"{found.bulk_modulus:.2f}"])

# Expected output:
# 4 structures in … s
# Si    -5.3137 eV/atom, -0.29 GPa
# MgO   -6.3139 eV/atom, 0.56 GPa
# NaCl  -3.6680 eV/atom, 0.07 GPa
# Cu    -4.0826 eV/atom, -2.08 GPa
# Si    a = 5.471 Å, B = 71 GPa, B' = 7.9
# MgO   a = 4.254 Å, B = 140 GPa, B' = 5.0
# NaCl  a = 5.693 Å, B = 24 GPa, B' = 2.1
# Cu    a = 3.616 Å, B = 144 GPa, B' = 4.6
