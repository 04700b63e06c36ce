"""Writes shards of labelled structures: `python -m scripts.direct_readout.label CRYSTALS.npz.xz FOLDER`; resumes."""

import argparse
import logging
from pathlib import Path

import numpy as np

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.engine import Engine
from scripts.direct_readout.shards import GROUP, label, save
from scripts.direct_readout.structures import SHARES, TEST_SHARES, Crystals, perturbed

TEACHER = "0.3.0"
SHARD = 512  # structures
_log = logging.getLogger(__name__)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--first", type=int, default=0, help="first shard")
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--seed", type=int, default=20261126)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("ase_fastchgnet").setLevel(logging.WARNING)
    given.folder.mkdir(parents=True, exist_ok=True)
    everything = Crystals(given.crystals, given.split)
    order = np.random.default_rng(given.seed).permutation(len(everything))
    engine = Engine(load_checkpoint(TEACHER))
    for shard in range(given.first, given.first + given.shards):
        path = given.folder / f"{given.crystals.name.split('.')[0]}-{given.split}-{shard:04d}.pt"
        if path.exists():
            continue
        rng = np.random.default_rng([given.seed, shard])
        # Beyond the last crystal the same ones come again, displaced in another way.
        chosen = [everything[order[i % len(order)]] for i in range(shard * SHARD, (shard + 1) * SHARD)]
        shares = TEST_SHARES if given.split == "test" else SHARES
        structures = list(perturbed(chosen, shares, rng))
        structures.sort(key=len)
        groups = [label(structures[i : i + GROUP], engine) for i in range(0, SHARD, GROUP)]
        save([group for group in groups if group is not None], path)
        _log.info("%s: %d structures, %d atoms", path.name, SHARD, sum(map(len, structures)))


if __name__ == "__main__":
    main()
