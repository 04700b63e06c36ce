"""How to find the barrier of an atom's hop: a lithium vacancy in Li2O moves to the next site."""

import argparse
from pathlib import Path

import numpy as np
from ase.build import bulk

from ase_fastchgnet import FastCHGNet, neb, relax

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()

calculator = FastCHGNet()
crystal = relax(bulk("OLi2", "fluorite", a=4.6), calculator, fmax=0.01).structure
print(f"Li2O: lattice constant {np.sqrt(2) * crystal.cell.lengths()[0]:.3f} Å")

# Two lithium sites next to each other, one of them empty; the atom on the other one hops.
host = crystal.repeat(2)
lithium = np.flatnonzero(host.symbols == "Li")
empty, hopping = lithium[np.argsort(host.get_distances(lithium[0], lithium, mic=True))[:2]]
initial, final = host.copy(), host.copy()
final.positions[hopping] = host.positions[empty]
del initial[empty], final[empty]

path = neb(initial, final, calculator, images=3, relax_ends=True, optimizer="BFGS")
print(path)
for written in path.write(options.out / "neb"):
    print(f"written: {written}")

# Expected output:
# Li2O: lattice constant 4.654 Å
# Li15O8, 3 images between the ends
# path, Å  energy change, eV  max |F|, eV/Å
#   0.000             0.0000          …
#   0.536             0.1009          …
#   1.054             0.2211          …
#   1.571             0.1009          …
#   2.108             0.0000          …
# barrier 0.221 eV, in reverse 0.221 eV
# written: demo_out/neb/neb.json
# written: demo_out/neb/neb.csv
# written: demo_out/neb/neb.png
# written: demo_out/neb/images.extxyz
