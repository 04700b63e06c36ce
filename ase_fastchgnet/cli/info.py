"""`fastchgnet info`: what is installed, which models there are, where they can run."""

import importlib.metadata
import importlib.util
import json
import platform
import textwrap
from pathlib import Path
from typing import Annotated

import typer

PACKAGES = ("torch", "numpy", "ase", "vesin", "matplotlib", "phonopy", "seekpath", "pymatgen")


def info(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CHECKPOINT]", help="Describe this file.", show_default=False)
    ] = None,
) -> None:
    """Versions, models, devices and threads; or what is in a checkpoint.

    Examples:
      fastchgnet info
      fastchgnet info finetuned.pth.tar
    """
    if checkpoint is None:
        _describe_installation()
    else:
        _describe_checkpoint(checkpoint)


def _describe_installation() -> None:
    import torch

    from ase_fastchgnet import __version__
    from ase_fastchgnet.model.checkpoint import PRETRAINED, RELEASED

    system = f"{platform.system()} {platform.machine()}"
    print(f"ase-fastchgnet {__version__} on Python {platform.python_version()}, {system}")
    packages = ", ".join(map(_version, PACKAGES))
    print(textwrap.fill(packages, width=78, initial_indent="  ", subsequent_indent="  "))
    print("\nModels             atom cut-off  bond cut-off  SHA-256 of the weights")
    for name in RELEASED:
        description = json.loads((PRETRAINED / f"{name}.json").read_text(encoding="utf-8"))
        config = description["config"]
        print(
            f"  {name:<17}{config['atom_cutoff']:>10g} Å  {config['bond_cutoff']:>10g} Å  {description['sha256'][:16]}…"
        )
    print("\nDevices")
    print(f"  cpu      {torch.get_num_threads()} thread(s), as OMP_NUM_THREADS says or torch chooses")
    for n in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(n)
        print(f"  cuda:{n}   {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    print("\nLicence: BSD 3-Clause; the weights are CHGNet's, under its own BSD licence.")
    print("Please cite B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023),")
    print("doi:10.1038/s42256-023-00716-3.")


def _describe_checkpoint(path: Path) -> None:
    from ase_fastchgnet.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    print(f"{checkpoint.name}\n  SHA-256 {checkpoint.sha256}")
    for name, value in checkpoint.config.to_dict().items():
        print(f"  {name.replace('_', ' ')}: {value}")


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"
