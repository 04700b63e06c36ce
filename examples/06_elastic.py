"""How to get elastic constants, averaged moduli and the speed of sound."""

import argparse
from pathlib import Path

from ase.build import bulk

from ase_fastchgnet import elastic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()

found = elastic(bulk("MgO", "rocksalt", a=4.25))
print(found)

density = found.structure.get_masses().sum() * 1.66054 / found.structure.get_volume()  # g/cm³
print(f"sound along a cubic axis: {(found.tensor[0, 0] / density) ** 0.5:.2f} km/s")
for path in found.write(options.out / "elastic"):
    print(f"written: {path}")

# Expected output:
# MgO, Fm-3m
# elastic constants, GPa (xx yy zz yz xz xy)
#    213.5     82.3     82.3      0.0      0.0      0.0
#     82.3    213.5     82.3      0.0      0.0      0.0
#     82.3     82.3    213.5      0.0      0.0      0.0
#      0.0      0.0      0.0     87.4      0.0      0.0
#      0.0      0.0      0.0      0.0     87.4      0.0
#      0.0      0.0      0.0      0.0      0.0     87.4
# modulus, GPa     Voigt    Reuss     Hill
# bulk             126.0    126.0    126.0
# shear             78.7     77.1     77.9
# Young's                            193.8
# Poisson's ratio         0.244
# universal anisotropy    0.099
# stable: lowest eigenvalue 87.4 GPa
# measured C_ij and C_ji differ by up to 0.0 GPa
# sound along a cubic axis: 7.84 km/s
# written: demo_out/elastic/elastic.json
# written: demo_out/elastic/structure.extxyz
