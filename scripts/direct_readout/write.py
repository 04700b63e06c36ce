"""Writes the trained readout as a released checkpoint: `python -m scripts.direct_readout.write STATE.pt [FOLDER]`."""

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import safetensors.torch

from ase_fastchgnet.model.checkpoint import DIRECT, PRETRAINED, load_checkpoint
from scripts.direct_readout.train import Run

TRUNK = "0.3.0"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=PRETRAINED)
    given = parser.parse_args()
    trunk = load_checkpoint(TRUNK)
    run = Run.load(given.state, trunk.config)
    folded = run.averaged().folded()
    data = safetensors.torch.save({name: weight.float().contiguous() for name, weight in folded.items()})
    description = {
        "name": DIRECT[TRUNK],
        "sha256": hashlib.sha256(data).hexdigest(),
        "trunk": {"name": TRUNK, "sha256": trunk.sha256},
        "config": replace(trunk.config, direct_readout=True).to_dict(),
        "training": {"steps": run.step, "processor_hours": round(run.seconds / 3600, 2)},
    }
    (given.folder / f"{DIRECT[TRUNK]}.safetensors").write_bytes(data)
    text = json.dumps(description, indent=2) + "\n"
    (given.folder / f"{DIRECT[TRUNK]}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
