"""How to fine-tune the model on structures that were labelled by DFT, and what it forgets elsewhere."""

import argparse
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from ase_fastchgnet import FINETUNE, FastCHGNet, evaluate, finetune

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
folder = parser.parse_args().out / "finetune"
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)


def label(name, structures, model):
    """Move atoms and cells, and write a file with labels: yours by DFT; here a model's, which stand for them."""
    for atoms in structures:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    for atoms, prediction in zip(structures, evaluate(structures, model), strict=True):
        found = prediction.results()
        atoms.calc = SinglePointCalculator(atoms, **{key: found[key] for key in ("energy", "forces", "stress")})
    write(folder / name, structures)


salts = [bulk("NaCl", "rocksalt", a=5.6), bulk("LiF", "rocksalt", a=4.0)]
label("data.extxyz", [bulk("MgO", "rocksalt", a=4.21) for _ in range(30)], "r2scan")  # of another functional
label("test.extxyz", [bulk("MgO", "rocksalt", a=4.21) for _ in range(10)], "r2scan")
label("salts.extxyz", [salt.copy() for salt in salts for _ in range(5)], "0.3.0")

run = finetune(
    folder / "data.extxyz",
    folder / "run",
    FINETUNE.but(epochs=5, batch_size=4, energy_weight=10),
    validation=0.2,
    test={"MgO": folder / "test.extxyz", "salts": folder / "salts.extxyz"},  # errors only, before and after
    replay=salts * 10,  # structures that the model is to stay right for; they are moved, and labelled by itself
    overwrite=True,
)
print(run)
atoms = read(folder / "test.extxyz")
text = f"the label says {atoms.get_potential_energy():.3f}"
atoms.calc = FastCHGNet(run.model)
print(f"{atoms.get_potential_energy():.3f} eV; {text}")

# Expected output (after training, numbers differ a little from machine to machine):
# mean absolute errors            energy  force  stress  moment
#                               meV/atom  meV/Å     GPa      μB
# validation            before       8.3   68.5   1.762       -
#                       after        4.6   33.2   0.395       -
# MgO                   before       8.5   62.0   1.868       -
#                       after        4.2   29.2   0.453       -
# salts                 before       0.0    0.0   0.000       -
#                       after        4.8    3.8   0.078       -
# -15.999 eV; the label says -15.992
