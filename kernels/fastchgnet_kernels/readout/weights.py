"""What a readout is made of, and what one leaves behind."""

from typing import NamedTuple

from torch import Tensor


class ReadoutWeights(NamedTuple):
    """Matrices are input-major: z = x @ W."""

    scale: Tensor | None  # (D,) of the LayerNorm; None where there is none
    shift: Tensor | None  # (D,)
    hidden: Tensor  # (layers, D, D)
    hidden_bias: Tensor  # (layers, D)
    out: Tensor  # (1, D)
    out_bias: Tensor  # (1,)


class Kept(NamedTuple):
    """What the forward pass in plain torch leaves for its adjoint; the kernels compute it again."""

    moments: tuple[Tensor, Tensor] | None  # (atoms, 1) mean and 1/deviation of the norm
    hidden: list[Tensor]  # (atoms, D) pre-activations z of each hidden layer
