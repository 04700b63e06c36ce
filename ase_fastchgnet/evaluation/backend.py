"""(model, dtype, device, backend) → the loaded model that evaluates graphs: chosen here and nowhere else."""

import functools
import os
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ase_fastchgnet.graph import Cutoffs, GraphBatch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.reference import ReferenceModel
from fastchgnet_kernels import check_triton, on_device, runs_kernels

from .source import Forces, ModelSource, load_weights

BackendName = Literal["torch", "triton", "reference"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
BACKENDS = ("auto", "torch", "triton", "reference")
FORCES = ("conservative", "direct")
DEVICE_VARIABLE = "FASTCHGNET_DEVICE"


class Tape(Protocol):
    """A finished forward pass, ready to be differentiated."""

    @property
    def output(self) -> ModelOutput: ...


class Model(Protocol):
    """What `ReferenceModel` and `Engine` have in common."""

    def evaluate(self, graph: GraphBatch) -> ModelOutput:
        """Forward and adjoint at once, which may cost less than one after the other."""

    def forward(self, graph: GraphBatch) -> Any:
        """Everything but the gradient: a Tape."""

    def backward(self, tape: Any) -> tuple[Tensor, Tensor]:
        """Forces (atoms, 3) eV/Å and virials (systems, 3, 3) eV, by the adjoint or by the direct readout."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A model with its weights on a device."""

    name: BackendName
    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device
    model: Model

    @property
    def cutoffs(self) -> Cutoffs:
        return Cutoffs(self.checkpoint.config.atom_cutoff, self.checkpoint.config.bond_cutoff)

    def evaluate(self, graph: GraphBatch) -> ModelOutput:
        """Everything; costs less than `forward` and then `backward`."""
        with on_device(self.device):
            return self.model.evaluate(graph)

    def forward(self, graph: GraphBatch) -> Tape:
        """Everything but the gradient."""
        with on_device(self.device):
            tape: Tape = self.model.forward(graph)
        return tape

    def backward(self, tape: Tape) -> ModelOutput:
        """The output of the forward pass completed by forces and virials."""
        with on_device(self.device):
            forces, virial = self.model.backward(tape)
        return tape.output._replace(forces=forces, virial=virial)


@torch.inference_mode(False)  # as in load_weights
def load_backend(
    model: ModelSource = "0.3.0",
    *,
    dtype: str = "float32",
    device: str | None = None,
    forces: Forces = "conservative",
    backend: str = "auto",
    tf32: bool = False,
) -> Backend:
    """The backend for these options; the same object as before if it is among the last few in use."""
    check_options(dtype=dtype, device=device, forces=forces, backend=backend, tf32=tf32)
    place = resolve_device(device)
    name = resolve_backend(backend, place)
    _check_tf32(tf32, dtype, name)
    return _load(load_weights(model, forces), DTYPES[dtype], place, forces, name, tf32)


@functools.lru_cache(maxsize=8)
def _load(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, forces: Forces, name: BackendName, tf32: bool
) -> Backend:
    if name == "triton":
        check_triton(device)
    if name == "reference":
        return Backend(name, checkpoint, dtype, device, ReferenceModel(checkpoint, dtype=dtype, device=str(device)))
    engine = Engine(checkpoint, dtype=dtype, device=str(device), forces=forces, tf32=tf32)
    return Backend(name, checkpoint, dtype, device, engine)


def check_options(*, dtype: str, device: str | None, forces: str, backend: str, tf32: bool = False) -> None:
    """Raises what can be found wrong with the options without loading anything."""
    if forces not in FORCES:
        raise ValueError(f"forces={forces!r} is not one of {', '.join(map(repr, FORCES))}")
    if forces == "direct" and backend == "reference":
        raise ValueError("backend='reference' is the exact model by autograd: it has no direct forces; use 'auto'")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(map(repr, DTYPES))}")
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is not one of {', '.join(map(repr, BACKENDS))}")
    place = requested_device(device)
    _check_tf32(tf32, dtype, backend if place is None else resolve_backend(backend, place))


def _check_tf32(tf32: bool, dtype: str, backend: str) -> None:
    """ValueError if no product could be made in TF32."""
    if tf32 and dtype != "float32":
        raise ValueError(f"tf32=True rounds products of float32 numbers, and dtype is {dtype!r}; leave one of them out")
    if tf32 and backend not in ("auto", "triton"):
        raise ValueError(
            f"tf32=True is for Triton's kernels, and backend {backend!r} has none; use a CUDA device with "
            "backend='auto', or leave tf32 out"
        )


def resolve_backend(backend: str, device: torch.device) -> BackendName:
    """Who will do the work on `device`: the reference, or the engine with the ops that it has there."""
    if backend == "reference":
        return "reference"
    engine: BackendName = "triton" if runs_kernels(device) else "torch"
    if backend not in ("auto", engine):
        raise ValueError(f"backend={backend!r} does not run on {str(device)!r}; use 'auto', which is {engine!r} there")
    return engine


def resolve_device(device: str | None) -> torch.device:
    """The device to work on: the one asked for, else FASTCHGNET_DEVICE, else CUDA if there is one, else the CPU."""
    chosen = requested_device(device)
    if chosen is None:
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.type == "cpu":
        return chosen
    if not torch.cuda.is_available():
        raise RuntimeError(f"device {str(chosen)!r} is not available: torch finds no CUDA device; use device='cpu'")
    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise RuntimeError(
            f"device {str(chosen)!r} is not available: torch finds {torch.cuda.device_count()} CUDA device(s); use a "
            "lower number, and see CUDA_VISIBLE_DEVICES"
        )
    return torch.device("cuda", index)


def requested_device(device: str | None) -> torch.device | None:
    """The device named by the argument or the environment, available or not; None if neither names one."""
    source, name = ("device", device) if device is not None else (DEVICE_VARIABLE, os.environ.get(DEVICE_VARIABLE))
    if not name:
        return None
    kind, _, index = str(name).partition(":")
    if (index and not index.isdecimal()) or (kind, index) not in {("cpu", ""), ("cuda", index)}:
        raise ValueError(f"{source}={str(name)!r} is not a device; use 'cpu', 'cuda' or 'cuda:N'")
    return torch.device(str(name))
