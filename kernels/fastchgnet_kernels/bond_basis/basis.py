"""The basis of some bonds, as the functions of this op hand it on."""

from typing import NamedTuple

from torch import Tensor


class Basis(NamedTuple):
    """b_k of n bonds: plain torch computes it once and keeps it, kernels compute it wherever it is multiplied."""

    r: Tensor  # (n,) Å, float64
    frequencies: Tensor  # (k,), in the dtype of all results
    cutoff: float  # Å
    exponent: int
    values: Tensor | None  # (n, k); None where kernels run
