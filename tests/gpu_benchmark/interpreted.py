"""What kernels are called with, counted in Triton's interpreter: run by test_gpu_benchmark.py."""

import pytest
import torch
from ase.build import bulk

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.engine.gated_ops import gated_ops
from ase_fastchgnet.model.engine.weights import pack
from benchmarks._gpu_profile import FORWARD, arguments, kernels
from fastchgnet_kernels.io_model.gated import compulsory_bytes

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")


@pytest.mark.parametrize("number", range(3))
def test_arguments_are_the_compulsory_bytes(number: int) -> None:
    """Each input read and each output written once, an output that is added to both; counted from shapes there."""
    graph = build_batch([bulk("MgO", "rocksalt", a=4.21)], Cutoffs())
    op = gated_ops(graph, pack(load_checkpoint("0.3.0"), torch.float32, "cpu"))[number]
    with arguments() as moved:
        op.run()
    assert moved[FORWARD[op.name]] == compulsory_bytes(op.shape)
    assert all(not kernel.pre_run_hooks for kernel in kernels().values())
