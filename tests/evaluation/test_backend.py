"""Which backend and device are chosen, and that weights are loaded once."""

import pytest
import torch

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.evaluation.backend import Backend, load_backend, requested_device, resolve_backend, resolve_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_auto_is_the_engine_with_the_ops_of_the_device() -> None:
    assert [resolve_backend(name, CPU) for name in ("auto", "torch", "reference")] == ["torch", "torch", "reference"]
    assert [resolve_backend(name, CUDA) for name in ("auto", "triton", "reference")] == [
        "triton",
        "triton",
        "reference",
    ]


@pytest.mark.parametrize(("backend", "device", "there"), [("triton", CPU, "torch"), ("torch", CUDA, "triton")])
def test_ops_of_another_device_are_refused(backend: str, device: torch.device, there: str) -> None:
    with pytest.raises(ValueError, match=f"does not run on '{device}'; use 'auto', which is '{there}' there"):
        resolve_backend(backend, device)


def test_the_same_options_give_the_same_backend_and_others_another() -> None:
    first = load_backend(device="cpu")
    assert load_backend("0.3.0", device="cpu", backend="torch") is first
    for options in ({"dtype": "float64"}, {"backend": "reference"}, {"model": "0.2.0"}):
        assert load_backend(**{"device": "cpu", **options}) is not first


def test_cutoffs_are_those_of_the_checkpoint() -> None:
    assert (load_backend("0.3.0", device="cpu").cutoffs.atom, load_backend("0.2.0", device="cpu").cutoffs.atom) == (
        6,
        5,
    )


def test_the_device_is_the_argument_else_the_environment_else_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCHGNET_DEVICE", "cuda:1")
    assert requested_device("cpu") == torch.device("cpu")
    assert requested_device(None) == torch.device("cuda:1")
    monkeypatch.setenv("FASTCHGNET_DEVICE", "")
    assert requested_device(None) is None
    monkeypatch.delenv("FASTCHGNET_DEVICE")
    assert requested_device(None) is None
    assert resolve_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_has_a_number_and_a_number_too_high_is_refused() -> None:
    assert resolve_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    with pytest.raises(RuntimeError, match="lower number"):
        resolve_device("cuda:99")


def test_kernels_are_launched_on_the_device_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on torch's current device. There need not be a second GPU here, so what would make it the
    current one is watched instead."""
    entered: list[torch.device] = []

    class Watched:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            entered.append(self.device)

        def __exit__(self, *_: object) -> None:
            entered.append(torch.device("cpu"))

    class Model:
        """Notes where it is called."""

        def forward(self, graph: object) -> torch.device:
            return entered[-1]

        evaluate = forward

    monkeypatch.setattr(torch.cuda, "device", Watched)
    second = torch.device("cuda", 1)
    backend = Backend("triton", load_checkpoint("0.3.0"), torch.float32, second, Model())  # type: ignore[arg-type]
    assert backend.evaluate(None) == backend.forward(None) == second  # type: ignore[arg-type, comparison-overlap]
    assert entered[-1] == torch.device("cpu")
