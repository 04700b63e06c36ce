"""The file from which a run goes on: every tensor that the next step depends on, and where the run is.

A safetensors file; its header holds the rest as JSON.  A kill at any moment leaves the old file or the new one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FORMAT = "1"  # changes when older files cannot be continued any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A moment of a run, between two steps."""

    step: int  # steps done since the start
    sampler: dict[str, Any]  # epoch, and how many of its batches are done
    sums: list[list[float]]  # losses, errors and counts of the present epoch so far
    best: float | None  # lowest loss of validation so far
    history: list[dict[str, float | None]]  # a row for each finished epoch
    files: dict[str, int]  # bytes of each log that belong to what is done
    seconds: float  # of training so far


def save_state(path: Path, position: Position, tensors: Mapping[str, Tensor], run: Mapping[str, Any]) -> None:
    """Replace the file at `path`; `run` is what has to be the same for the run to go on."""
    header = {"format": FORMAT, "run": json.dumps(run), "position": json.dumps(asdict(position))}
    data = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, header)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with open(unfinished, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_state(path: Path, run: Mapping[str, Any]) -> tuple[Position, dict[str, Tensor]]:
    """What `save_state` wrote; ValueError if it is damaged, or of a run that is not `run`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise ValueError("written by another version of ase-fastchgnet")
        old, position = json.loads(header["run"]), Position(**json.loads(header["position"]))
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is no state that a run can go on from ({error}); restore it from a copy, or start again with "
            "overwrite"
        ) from error
    _check_same(path, old, json.loads(json.dumps(run)))
    return position, tensors


def copy_into(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Put saved values into `tensors`, in place; KeyError if one was not saved."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    different = [
        f"{name} (was {old.get(name)}, now {new.get(name)})"
        for name in {**new, **old}
        if old.get(name) != new.get(name)
    ]
    if different:
        raise ValueError(
            f"{path} belongs to another run; what differs: {', '.join(different)}.  Resume with what it was, or choose "
            "another folder, for which this run's model may be the start"
        )
