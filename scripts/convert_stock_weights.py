"""Converts the checkpoints of an installed chgnet 0.4.2 to ase_fastchgnet/pretrained/<model>.safetensors and .json.

    python scripts/convert_stock_weights.py

For the maintainers: the converted files are part of the repository and reproducible bit for bit.
"""

import dataclasses
import importlib.metadata
import importlib.util
from pathlib import Path

from ase_fastchgnet.model.checkpoint import PRETRAINED, RELEASED, load_checkpoint, save_checkpoint

CHGNET_VERSION = "0.4.2"


def stock_package() -> Path:
    """Folder of the installed chgnet; it is not imported."""
    version = importlib.metadata.version("chgnet")
    if version != CHGNET_VERSION:
        raise SystemExit(f"chgnet {version} is installed; the released files come from {CHGNET_VERSION}")
    spec = importlib.util.find_spec("chgnet")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def convert(name: str) -> None:
    """Writes one released model."""
    (source,) = (stock_package() / "pretrained" / name).glob("*.pth.tar")
    checkpoint = dataclasses.replace(load_checkpoint(source), name=name)
    save_checkpoint(checkpoint, PRETRAINED / f"{name}.safetensors")
    print(f"{source.name} -> {name}.safetensors")


if __name__ == "__main__":
    for released in RELEASED:
        convert(released)
