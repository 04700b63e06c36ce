"""A fixture for tests of recorded steps."""

from collections.abc import Callable

import pytest
import torch

from ase_fastchgnet import calculator
from ase_fastchgnet.evaluation import captured
from ase_fastchgnet.evaluation.captured import Results
from ase_fastchgnet.graph import DeviceNeighborCache
from tests.evaluation.recorded import Steps


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Calculators on the CPU find neighbours as they do on a CUDA device, and so record their steps."""
    counted, record = Steps(), captured.record

    def counting(run: Callable[[], object], device: torch.device) -> tuple[object, Callable[[], None]]:
        results, play = record(run, device)
        is_step = isinstance(results, Results)
        counted.recorded += is_step

        def play_and_count() -> None:
            counted.played += is_step
            counted.chosen += not is_step
            play()

        return results, play_and_count

    monkeypatch.setattr(captured, "record", counting)
    monkeypatch.setattr(calculator, "neighbor_cache", DeviceNeighborCache)
    return counted
