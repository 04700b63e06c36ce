"""Where weights come from: a released name, a path, or a Checkpoint; and what a pickle writes instead of them."""

import os
import pickle
from pathlib import Path
from typing import Literal

import torch

from ase_fastchgnet.model.checkpoint import (
    DIRECT,
    RELEASED,
    Checkpoint,
    is_released,
    load_checkpoint,
    with_released_readout,
)

Forces = Literal["conservative", "direct"]
ModelSource = str | os.PathLike[str] | Checkpoint


@torch.inference_mode(False)  # tensors made in that mode could never be used outside of it, and these outlive the call
def load_weights(source: ModelSource, forces: Forces = "conservative") -> Checkpoint:
    """The checkpoint of a released name or a path, or the one given; for direct forces, one that has the weights.

    A released model has them in a checkpoint of its own, whose energies and magnetic moments are the same.
    """
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(source)
    if forces == "conservative" or checkpoint.config.direct_readout:
        return checkpoint
    if (with_readout := with_released_readout(checkpoint)) is not None:
        return with_readout
    raise ValueError(
        f"model {checkpoint.name!r} has no weights for direct forces; use one of {', '.join(map(repr, DIRECT))}, a "
        "model that was trained with forces='direct', or forces='conservative'"
    )


def check_source(source: ModelSource) -> str | Checkpoint:
    """The source if there is one, loading nothing; a path is made to mean the same file from any folder."""
    if isinstance(source, Checkpoint):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"model must be a released name, a path or a Checkpoint, got {type(source).__name__}")
    name = os.fspath(source)
    if is_released(name):
        return name
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ValueError(
            f"model {name!r} is neither a released model ({', '.join(map(repr, RELEASED))}) nor an existing file"
        )
    return str(path)


def portable_name(source: str | Checkpoint) -> str:
    """The name or path that leads to the same weights in another process."""
    if isinstance(source, str):
        return source
    if is_released(source.name) and load_weights(source.name) == source:
        return source.name
    raise pickle.PicklingError(
        f"the weights of {source.name!r} were given as a Checkpoint, and a calculator is pickled by the name of its "
        "model; write them with save_checkpoint(checkpoint, path) and use FastCHGNet(path)"
    )
