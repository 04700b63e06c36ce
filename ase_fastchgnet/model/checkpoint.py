"""Weights by released name or path → Checkpoint, and back to a file.

Our own files are a pair: `<model>.safetensors` with stock's tensor names unchanged, and `<model>.json` beside it with
the name, the ModelConfig and the SHA-256 of the safetensors file, which is verified on every load.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.parameters import Parameters
from ase_fastchgnet.model.stock_file import read_stock_file

RELEASED = ("0.3.0", "0.2.0", "r2scan")
DIRECT = {"0.3.0": "0.3.0-direct"}  # the same model with a direct readout
PRETRAINED = Path(__file__).parents[1] / "pretrained"
STOCK_SUFFIXES = (".pth.tar", ".pth", ".pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's weights with what they mean; two are equal if they have the same name and come from the same file."""

    name: str
    config: ModelConfig
    parameters: Parameters = field(compare=False, repr=False)  # float64, on the CPU
    sha256: str  # of the file that the weights were read from


def load_checkpoint(model: str | os.PathLike[str], *, trust_pickle: bool = False) -> Checkpoint:
    """The checkpoint of a released model ("0.3.0", "0.2.0", "r2scan", and "0.3.0-direct") or of a file.

    A file is a `.safetensors` with its `.json` beside it (`save_checkpoint`) or what stock chgnet saves (`.pth.tar`,
    `.pth`, `.pt`).  The latter is a pickle.  It is read without running code from it, which is enough for what
    chgnet's Trainer writes; a file that needs more is refused unless `trust_pickle` is set, and then it can run any
    code, so set it for files of people you trust only.
    """
    if is_released(model):
        return _load_released(str(model))
    path = Path(model).expanduser()
    if not path.is_file():
        raise ValueError(
            f"model {os.fspath(model)!r} is neither a released model ({', '.join(map(repr, RELEASED))}) nor an "
            f"existing file; a path must lead to a .safetensors or a stock {STOCK_SUFFIXES[0]} file"
        )
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.name.endswith(STOCK_SUFFIXES):
        return _load_stock(path, trust_pickle=trust_pickle)
    raise ValueError(f"{path}: unknown kind of file; expected .safetensors or stock {', '.join(STOCK_SUFFIXES)}")


def with_released_readout(checkpoint: Checkpoint) -> Checkpoint | None:
    """A released model with the direct readout that comes with it; None if this is none, or none comes with it."""
    if checkpoint.name in DIRECT and checkpoint == _load_released(checkpoint.name):
        return _load_released(DIRECT[checkpoint.name])
    return None


def is_released(model: object) -> bool:
    """Whether this is the name of a model that comes with the package."""
    return model in RELEASED or model in DIRECT.values()


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Writes `path`, a `.safetensors` file, and the `.json` beside it.

    Tensors are stored in float32 where that loses nothing, as for every model trained in float32, else in float64.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written to a file that ends in .safetensors")
    tensors = checkpoint.parameters.to_state_dict(checkpoint.config)
    data = safetensors.torch.save({name: _compact(tensor) for name, tensor in tensors.items()})
    description = {
        "name": checkpoint.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "converted_from_sha256": checkpoint.sha256,
        "config": checkpoint.config.to_dict(),
    }
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


@functools.lru_cache(maxsize=len(RELEASED) + len(DIRECT))
def _load_released(name: str) -> Checkpoint:
    path = PRETRAINED / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the weights of {name} are missing; reinstall ase-fastchgnet")
    return _load_safetensors(path)


def _load_safetensors(path: Path) -> Checkpoint:
    description = _read_description(path)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with _naming(path):
        if sha256 != description["sha256"]:
            raise ValueError(
                f"damaged, or not the file that the .json beside it describes: SHA-256 {sha256}, expected "
                f"{description['sha256']}; copy both files again (for a released model: reinstall ase-fastchgnet)"
            )
        config = ModelConfig.from_dict(description["config"])
        state = {**_trunk(description), **safetensors.torch.load(data)}
        parameters = Parameters.from_state_dict(state, config)
    return _checkpoint(description["name"], config, parameters, sha256)


def _trunk(description: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors that a file leaves to a released model, which a description names with the hash of its file."""
    if "trunk" not in description:
        return {}
    trunk = _load_released(description["trunk"]["name"])
    if trunk.sha256 != description["trunk"]["sha256"]:
        raise ValueError(f"belongs to other weights of {trunk.name}: SHA-256 {description['trunk']['sha256']}")
    return trunk.parameters.to_state_dict(trunk.config)


def _load_stock(path: Path, *, trust_pickle: bool) -> Checkpoint:
    data = path.read_bytes()
    with _naming(path):
        stock = read_stock_file(data, trust_pickle=trust_pickle)
        config = ModelConfig.from_stock(stock.model_args, stock.state_dict)
        parameters = Parameters.from_state_dict(stock.state_dict, config)
    suffix = next(suffix for suffix in STOCK_SUFFIXES if path.name.endswith(suffix))
    return _checkpoint(path.name.removesuffix(suffix), config, parameters, hashlib.sha256(data).hexdigest())


def _checkpoint(name: str, config: ModelConfig, parameters: Parameters, sha256: str) -> Checkpoint:
    return Checkpoint(name=name, config=config, parameters=parameters.to(dtype=torch.float64), sha256=sha256)


def _read_description(path: Path) -> dict[str, Any]:
    where = path.with_suffix(".json")
    if not where.is_file():
        raise FileNotFoundError(f"{where}: missing; {path.name} needs it beside it, as save_checkpoint writes them")
    with _naming(where):
        description = json.loads(where.read_text(encoding="utf-8"))
        if not isinstance(description, dict) or not {"name", "sha256", "config"} <= description.keys():
            raise ValueError("needs 'name', 'sha256' and 'config', as save_checkpoint writes them; copy the file again")
    return description


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the path in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _compact(tensor: Tensor) -> Tensor:
    single = tensor.to(torch.float32)
    return (single if torch.equal(single.to(tensor.dtype), tensor) else tensor).contiguous()
