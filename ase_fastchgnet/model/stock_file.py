"""Reads what stock chgnet saves with torch.save, without running any code that the file may contain.

A `.pth.tar` is a pickle, and unpickling can call anything.  torch's restricted unpickler builds tensors and plain
containers only; the few further names that chgnet's own Trainer writes are allowed below, chgnet's classes as inert
stand-ins, so chgnet need not be installed.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_fastchgnet.model.config import REFERENCE_ENERGIES

# dtypes of the numpy numbers and arrays that end up in training histories and fitted reference energies
_NUMPY_DTYPES = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]


class _Inert:
    """Stands in for a class of chgnet or torch.nn: keeps the attributes of the pickled object, has no behaviour."""


@dataclass(frozen=True, slots=True)
class StockModel:
    """What is needed of a stock checkpoint; the state of the optimizer and the training history are left behind."""

    model_args: dict[str, Any]
    state_dict: dict[str, Tensor]


def read_stock_file(data: bytes, *, trust_pickle: bool = False) -> StockModel:
    """The model in the bytes of a stock checkpoint.

    Reads the files of chgnet's Trainer ({"model": {"state_dict", "model_args"}, "optimizer", …}) and a saved
    CHGNet.as_dict().  With `trust_pickle` the file is unpickled without restrictions: it can then run any code.
    """
    content = _unpickle(data, trust_pickle=trust_pickle)
    model = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or not {"model_args", "state_dict"} <= model.keys():
        keys = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            "no CHGNet in it: expected 'model_args' and 'state_dict', at the top or under 'model', "
            f"got {keys}; save the model with chgnet's Trainer.save or torch.save(model.as_dict(), path)"
        )
    model_args = dict(model["model_args"])
    state_dict = {name: tensor.detach() for name, tensor in model["state_dict"].items()}
    if model_args.get("composition_model", "MPtrj") is None:
        # Stock adds nothing then; zeros say the same and keep one architecture.
        state_dict[REFERENCE_ENERGIES] = torch.zeros(1, 94)
    return StockModel(model_args, state_dict)


def _unpickle(data: bytes, *, trust_pickle: bool) -> Any:
    if trust_pickle:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    with torch.serialization.safe_globals(_allowed()):
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(_refusal(data)) from error
        except (RuntimeError, EOFError, LookupError, struct.error, UnicodeError) as error:
            # What the unpickler makes of bytes that were never a pickle, or of half of one.
            raise ValueError(f"damaged or not written by torch.save ({error}); copy the file again") from error


def _allowed() -> list[Any]:
    """Names beyond torch's own list, each with what it becomes here."""
    array = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    renamed = [  # numpy 2 calls its core `_core`; files may have been written under either
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((array, "_reconstruct"), (scalar, "scalar"))
    ]
    inert = [
        (_Inert, name)
        for name in (
            "chgnet.model.composition_model.AtomRef",  # a model built with its own reference energies stores them so
            "torch.nn.modules.linear.Linear",
        )
    ]
    return [np.ndarray, np.dtype, *_NUMPY_DTYPES, *renamed, *inert]


def _refusal(data: bytes) -> str:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return "not written by torch.save, or by torch < 1.6 and with more than tensors and plain values; save it again"
    needs = ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))))
    return (
        f"refused, because reading it means calling {needs or 'something torch does not allow'}, and a file that calls "
        "what it likes can run any code on this machine; if you trust whoever wrote it: "
        "load_checkpoint(path, trust_pickle=True)"
    )
