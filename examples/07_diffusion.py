"""How to get diffusion coefficients and their activation energy from runs at several temperatures, side by side.

Molten sodium chloride, 64 atoms: a crystal as dense as the melt, which velocities of 4000 K melt at once. Some minutes.
"""

import argparse
import logging
import sys
from pathlib import Path

from ase.build import bulk

from ase_fastchgnet import arrhenius, diffusion, md_replicas, radial_distribution

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-n", "--steps", type=int, default=3000)
parser.add_argument("-o", "--out", type=Path, default=Path("demo_out") / "diffusion", help="folder for the results")
parser.add_argument("--repeat", type=int, default=2, help="cells of 8 atoms along each direction")
options = parser.parse_args()
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)  # progress, where there is no terminal

salt = bulk("NaCl", "rocksalt", a=6.4, cubic=True).repeat(options.repeat)
runs = md_replicas(
    salt,
    [1300, 1600, 2000],  # K
    steps=options.steps,
    timestep=4,  # fs: no light atoms
    initial_temperature=4000,  # K; the thermostat takes the heat away
    max_temperature=20000,
    trajectory_interval=5,  # steps
    out=options.out,
    overwrite=True,
)
skip = options.steps * 4 / 6  # fs, to melt and to cool down
for element in ("Na", "Cl"):
    found = {run.thermo.after(skip).temperature.mean(): diffusion(run, element, skip=skip) for run in runs}
    for temperature, result in found.items():
        print(f"{temperature:.0f} K: {result}")
    law = arrhenius(list(found), [d.coefficient for d in found.values()], [d.error for d in found.values()])
    print(f"{element}: {law}")
    figure, _ = law.plot()
    figure.savefig(options.out / f"arrhenius_{element}.png", dpi=150)
figure, _ = diffusion(runs[1], "Na", skip=skip).plot()
figure.savefig(options.out / "msd_Na.png", dpi=150)

shells = radial_distribution(runs[0], ("Na", "Cl"), skip=skip)
figure, _ = shells.plot()
figure.savefig(options.out / "rdf_Na_Cl.png", dpi=150)
first = shells.g.argmax()
within = shells.coordination[shells.distance < 4.0][-1]
print(f"Na-Cl: g = {shells.g[first]:.1f} at {shells.distance[first]:.2f} Å", end="")
print(f", {within:.1f} neighbours within 4 Å")

# Expected output, besides the progress; the motion is chaotic, so that numbers differ by about their errors:
# 1329 K: D(Na) = (1.591 ± 0.073)·10⁻⁴ cm²/s, mean squared displacement growing as t^0.95 from 0.2 to 1 ps
# 1600 K: D(Na) = (2.137 ± 0.086)·10⁻⁴ cm²/s, mean squared displacement growing as t^1.00 from 0.2 to 1 ps
# 2077 K: D(Na) = (2.79 ± 0.15)·10⁻⁴ cm²/s, mean squared displacement growing as t^1.00 from 0.2 to 1 ps
# Na: Eₐ = 0.180 ± 0.022 eV, D₀ = 0.00077 cm²/s within a factor of 1.2
# and four such lines for Cl, then
# Na-Cl: g = 3.5 at 2.68 Å, 4.8 neighbours within 4 Å
