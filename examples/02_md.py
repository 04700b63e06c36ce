"""How to run molecular dynamics at constant temperature, watch it, keep it, and judge how well energy is conserved."""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from ase.io import read

from ase_fastchgnet import md

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-n", "--steps", type=int, default=500)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
options = parser.parse_args()
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)  # progress, where there is no terminal

crystal = read(Path(__file__).parent / "structures" / "LiMnO2.cif").repeat(2)
run = md(
    crystal,
    steps=options.steps,
    timestep=2,  # fs
    ensemble="nvt-nose-hoover",
    temperature=300,  # K
    thermostat_time=50,  # fs
    initial_temperature=600,  # K: within some 50 fs, half of the kinetic energy becomes potential energy
    log_interval=2,  # steps
    out=options.out,
    overwrite=True,
)
figure, _ = run.thermo.plot()
figure.savefig(options.out / "thermo.png", dpi=100)

# Potential + kinetic energy is not constant: heat flows from and to the thermostat. Their sum with the energy of the
# thermostat is, but for errors of integration; the first 100 fs are left out, as a hot start oscillates.
late = run.thermo.after(100) if run.thermo.time[-1] > 200 else run.thermo
exchanged = late.potential + late.kinetic
print(f"mean temperature {late.temperature.mean():.0f} K")
print(f"drift of the conserved energy: {1000 * late.drift() / len(crystal):+.2f} meV/atom/ps")
print(f"its range: {1000 * np.ptp(late.conserved) / len(crystal):.2f} meV/atom", end="")
print(f", of {1000 * np.ptp(exchanged) / len(crystal):.2f} meV/atom that the thermostat exchanges")
for element in ("Mn", "O"):
    moments = [frame.get_magnetic_moments()[frame.symbols == element] for frame in run.frames()]
    print(f"magnetic moments of {element}: {np.min(moments):.2f} to {np.max(moments):.2f} μ_B")
print(f"written to {options.out}: trajectory.extxyz, thermo.csv, thermo.png, checkpoint.npz, final.extxyz")

# Expected output, besides the progress:
# mean temperature 293 K
# drift of the conserved energy: +0.05 meV/atom/ps
# its range: 0.15 meV/atom, of 22.44 meV/atom that the thermostat exchanges
# magnetic moments of Mn: 3.51 to 4.22 μ_B
# magnetic moments of O: 0.00 to 0.10 μ_B
# written to demo_out: trajectory.extxyz, thermo.csv, thermo.png, checkpoint.npz, final.extxyz
