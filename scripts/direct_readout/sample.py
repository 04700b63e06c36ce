"""Writes the structures that the readout is judged by: `python -m scripts.direct_readout.sample CRYSTALS.npz.xz OUT`.

Crystals of formulas that are in no training shard, rattled, strained or hot; beyond the one test shard that training
reports on.
"""

import argparse
import logging
import lzma
from pathlib import Path

import ase.io
import numpy as np

from scripts.direct_readout.label import SHARD
from scripts.direct_readout.structures import TEST_SHARES, Crystals, perturbed

SEED = 20261126


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("out", type=Path, help="an .extxyz.xz file")
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    logging.getLogger("ase_fastchgnet").setLevel(logging.WARNING)
    everything = Crystals(given.crystals, "test")
    order = np.random.default_rng(SEED).permutation(len(everything))
    chosen = [everything[i] for i in order[SHARD : SHARD + given.count]]
    structures = list(perturbed(chosen, TEST_SHARES, np.random.default_rng([SEED, 1])))
    for atoms in structures:
        atoms.set_array("momenta", None)
    with lzma.open(given.out, "wt", encoding="utf-8") as file:
        ase.io.write(file, structures, format="extxyz")


if __name__ == "__main__":
    main()
