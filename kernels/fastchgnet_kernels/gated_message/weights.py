"""What a gated message is made of: its weights and its incidence."""

from typing import NamedTuple

import torch
from torch import Tensor

NORM_EPS = 1e-5  # torch.nn.LayerNorm's default, as in CHGNet


class GatedWeights(NamedTuple):
    """A gated MLP after its (pre-projected) first linear; core, then gate. Also used for the gradients of these.

    `second` is None for a one-layer MLP, `scale` and `shift` for one without LayerNorm (CHGNet 0.2.0).
    """

    second: Tensor | None  # (2, D, D) input-major: y = h @ second
    second_bias: Tensor | None  # (2, D)
    scale: Tensor | None  # (2, D)
    shift: Tensor | None  # (2, D)

    def zeros(self) -> "GatedWeights":
        """Where gradients are added up."""
        return GatedWeights(*(None if x is None else torch.zeros_like(x) for x in self))


class Incidence(NamedTuple):
    """Which table rows feed which message, and the transpose: which messages used each table row.

    A message m sums the table rows `rows[ptr[m]:ptr[m+1]]` (a constant number each); table row t was used by the
    messages `messages[messages_ptr[t]:messages_ptr[t+1]]`.
    """

    rows: Tensor  # (messages * k,)
    ptr: Tensor  # (messages + 1,) = 0, k, 2k …
    messages: Tensor  # (messages * k,)
    messages_ptr: Tensor  # (table rows + 1,)


class Dense(NamedTuple):
    """A per-message input and its first-layer weight, added to the gathered pre-activation."""

    x: Tensor  # (messages, F)
    weight: Tensor  # (F, 2D)
