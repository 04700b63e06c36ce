"""Where weights come from: a released name, a path, or a Checkpoint; and what a pickle writes instead of them."""

import os
import pickle
from pathlib import Path

import torch

from ase_fastchgnet.model.checkpoint import RELEASED, Checkpoint, load_checkpoint

ModelSource = str | os.PathLike[str] | Checkpoint


@torch.inference_mode(False)  # tensors made in that mode could never be used outside of it, and these outlive the call
def load_weights(source: ModelSource) -> Checkpoint:
    """The checkpoint of a released name or a path, or the one given."""
    return source if isinstance(source, Checkpoint) else load_checkpoint(source)


def check_source(source: ModelSource) -> str | Checkpoint:
    """The source if there is one, loading nothing; a path is made to mean the same file from any folder."""
    if isinstance(source, Checkpoint):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"model must be a released name, a path or a Checkpoint, got {type(source).__name__}")
    name = os.fspath(source)
    if name in RELEASED:
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
    if source.name in RELEASED and load_weights(source.name) == source:
        return source.name
    raise pickle.PicklingError(
        f"the weights of {source.name!r} were given as a Checkpoint, and a calculator is pickled by the name of its "
        "model; write them with save_checkpoint(checkpoint, path) and use FastCHGNet(path)"
    )
