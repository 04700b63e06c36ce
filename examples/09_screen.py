"""How to evaluate thousands of structures in several processes, into a file with which a run that is killed goes on."""

import argparse
import json
from itertools import product
from pathlib import Path

from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from ase_fastchgnet import screen

METALS = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Sc", "Ti", "V", "Mn", "Fe", "Ni"]
OTHERS = ["N", "O", "F", "S", "Cl", "Br"]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()
out = options.out / "rocksalts.jsonl"


def rocksalts():
    """(name, structure) of every pair; a generator, so that a million of them would need no more memory."""
    for pair in product(METALS, OTHERS):
        radii = [covalent_radii[atomic_numbers[element]] for element in pair]
        yield "".join(pair), bulk("".join(pair), "rocksalt", a=2 * sum(radii))


done = screen(rocksalts(), out, devices=2, resume=True)  # resume: nothing that is in the file is evaluated again
print(f"{done.n_done} of {len(METALS) * len(OTHERS)} done, {len(done.failures)} failed")
with open(out) as lines:
    found = sorted((json.loads(line) for line in lines), key=lambda record: record["energy_eV_per_atom"])
for record in found[:3]:
    print(f"{record['id']:4} {record['energy_eV_per_atom']:.3f} eV/atom")

# Expected output:
# 72 of 72 done, 0 failed
# TiN  -9.522 eV/atom
# VN   -9.499 eV/atom
# ScN  -9.089 eV/atom
