"""What CHGNet says of one structure: energy, forces, stress and magnetic moments, in ASE's units."""

from pathlib import Path

from ase.io import read
from ase.units import GPa

from ase_fastchgnet import FastCHGNet

atoms = read(Path(__file__).parent / "structures" / "LiMnO2.cif")
atoms.calc = FastCHGNet()

energy = atoms.get_potential_energy()  # eV
forces = atoms.get_forces()  # eV/Å
stress = atoms.get_stress()  # eV/Å³; xx yy zz yz xz xy, tension positive
magmoms = atoms.get_magnetic_moments()  # μ_B, absolute values

print(f"{atoms.get_chemical_formula()}: {energy:.3f} eV, {energy / len(atoms):.4f} eV/atom")
print(f"stress: {' '.join(f'{component / GPa + 0.0:.2f}' for component in stress.round(5))} GPa")
print("atom  site energy (eV)  force along z (eV/Å)  magnetic moment (μ_B)")
for atom, site_energy, force, magmom in zip(atoms, atoms.get_potential_energies(), forces, magmoms, strict=True):
    print(f"{atom.symbol:4}  {site_energy:16.3f}  {force[2]:20.3f}  {magmom:21.3f}")

# Expected output:
# Li2Mn2O4: -58.942 eV, -7.3677 eV/atom
# stress: -0.30 0.22 -0.11 0.00 0.00 0.00 GPa
# atom  site energy (eV)  force along z (eV/Å)  magnetic moment (μ_B)
# Li              -3.626                 0.024                  0.003
# Li              -3.626                -0.024                  0.003
# Mn              -9.635                 0.093                  3.869
# Mn              -9.635                -0.093                  3.869
# O               -8.025                -0.002                  0.044
# O               -8.185                -0.013                  0.039
# O               -8.185                 0.013                  0.039
# O               -8.025                 0.002                  0.044
