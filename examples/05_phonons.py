"""How to get phonons of a crystal: bands, densities of states, heat capacity, and a warning if it is unstable."""

import argparse
from pathlib import Path

from ase.build import bulk

from ase_fastchgnet import phonons

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()

found = phonons(bulk("Si"))  # float64, relaxed first, in a supercell at least 12 Å thick
print(found)

gamma = found.bands[0]
print(f"optical modes at {gamma.start}: {', '.join(f'{f:.2f}' for f in gamma.frequencies[0, 3:])} THz")
for path in found.write(options.out / "phonons"):
    print(f"written: {path}")

# Expected output:
# Si2, Fd-3m
# 1 displaced supercell of 128 atoms (4 × 4 × 4 cells)
# highest frequency  13.35 THz
# zero-point energy  54.95 meV/atom
# at 300 K
#   free energy      28.32 meV/atom
#   entropy          20.27 J/K per mole of atoms
#   heat capacity    20.89 J/K per mole of atoms
# no imaginary modes: stable
# optical modes at Γ: 13.35, 13.35, 13.35 THz
# written: demo_out/phonons/phonopy_params.yaml
# written: demo_out/phonons/structure.extxyz
# written: demo_out/phonons/bands.png
# written: demo_out/phonons/dos.png
# written: demo_out/phonons/thermal.png
# written: demo_out/phonons/bands.csv
# written: demo_out/phonons/dos.csv
# written: demo_out/phonons/thermal.csv
