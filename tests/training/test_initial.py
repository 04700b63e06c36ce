"""Weights before any training: as torch and stock chgnet draw them."""

import contextlib
import io
import warnings

import pytest
import torch

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.config import REFERENCE_ENERGIES
from ase_fastchgnet.training.initial import untrained


def test_every_tensor_is_drawn_as_stock_draws_it() -> None:
    """Large tensors have stock's spread to within what their size allows; what is not random is equal."""
    config = load_checkpoint("0.3.0").config
    ours = untrained(config, seed=0).parameters.to_state_dict(config)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model import CHGNet

        torch.manual_seed(0)
        # What 0.3.0 was made with, as its own file says.
        args = CHGNet.load(verbose=False).as_dict()["model_args"]
        theirs = CHGNet(**args).state_dict()
    assert ours.keys() == theirs.keys()
    for name, drawn in theirs.items():
        if name == REFERENCE_ENERGIES:
            continue
        if "frequencies" in name or ".bn" in name or "norm" in name:
            torch.testing.assert_close(ours[name], drawn.double(), msg=name)
        elif drawn.numel() > 1000:
            # The standard deviation of n numbers has a relative error of about 1/√(2n); four times that, for both
            allowed = 4 * (2 / (2 * drawn.numel())) ** 0.5
            assert float(ours[name].std()) == pytest.approx(float(drawn.std()), rel=allowed), name


def test_a_seed_is_a_model() -> None:
    config = load_checkpoint("0.3.0").config
    first, again, other = (untrained(config, seed).parameters.embedding for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
