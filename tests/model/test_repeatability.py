"""Where kernels run, sums are made in an order that never changes, so that results repeat to the last bit.

Kernels have no atomics (tests/kernels). Of torch's own operations those that add to rows by index are atomic on CUDA
devices, which matters where two terms go to one row. Here kernels are left out and what they would return is whatever
memory holds; only rows matter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ase import Atoms
from structures import STRUCTURES
from torch.utils._python_dispatch import TorchDispatchMode

from ase_fastchgnet.evaluation.source import Forces, load_weights
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.engine import Engine
from fastchgnet_kernels import _launch

ADDS = {"index_add": 2, "index_add_": 2, "scatter_add": 2, "scatter_add_": 2}  # and where their index is
NEVER = {"bincount", "histc", "put_", "index_put_", "scatter_reduce", "segment_reduce", "embedding_bag"}


class Additions(TorchDispatchMode):
    """How many additions by index there were; none of them may add twice to a row."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = operation.overloadpacket.__name__
        assert name not in NEVER
        if name in ADDS:
            self.count += 1
            index = args[ADDS[name]]
            assert len(index.unique()) == len(index), name
        if name == "cumsum":
            assert not args[0].is_floating_point()
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_nothing_is_added_twice_to_one_row_by_index(forces: Forces, monkeypatch: pytest.MonkeyPatch) -> None:
    jit = pytest.importorskip("triton.runtime.jit", reason="Triton is for Linux only")
    monkeypatch.setattr(_launch, "INTERPRETED", True)
    monkeypatch.setattr(jit.JITFunction, "run", lambda *arguments, **options: None)
    checkpoint = load_weights("0.3.0", forces)
    engine = Engine(checkpoint, forces=forces)
    systems: list[Atoms] = [STRUCTURES["LiMnO2"], STRUCTURES["Si"]]
    graph = build_batch(systems, Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff))
    engine.evaluate(graph)  # its index is there
    with Additions() as additions:
        engine.evaluate(graph)
    assert additions.count > 0
