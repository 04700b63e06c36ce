"""Cases for the gated ops: random inputs of any shape, and the ops' formulas over dense 0/1 matrices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels.gated_message import Dense, GatedWeights, Incidence, Rows, Scratch, Segments, Weighting

SIZES = (0, 1, 63, 255, 256)


class Architecture(NamedTuple):
    """Which of the optional parts a gated op has."""

    layers: int = 2
    norm: bool = True
    dense: bool = True

    def __str__(self) -> str:
        parts = [f"{self.layers} layers", "norm" if self.norm else "no norm", "dense x" if self.dense else "no x"]
        return ", ".join(parts)


ARCHITECTURES = [
    Architecture(layers, norm, dense) for layers in (1, 2) for norm in (True, False) for dense in (True, False)
]


class Case(NamedTuple):
    """All inputs of a gated message; a gated update takes the first two."""

    rows: Rows
    weights: GatedWeights
    weighting: Weighting
    segments: Segments

    @property
    def n_messages(self) -> int:
        return self.segments.of_message.shape[0]

    @property
    def width(self) -> int:
        return self.rows.table.shape[1] // 2

    def with_inputs(self, table: Tensor, x: Tensor | None, weight: Tensor) -> "Case":
        """The same case at other differentiable inputs."""
        dense = None if x is None or self.rows.dense is None else self.rows.dense._replace(x=x)
        return self._replace(
            rows=self.rows._replace(table=table, dense=dense), weighting=self.weighting._replace(table=weight)
        )

    @property
    def inputs(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """table, x, weight: what the op can be differentiated by."""
        return self.rows.table, None if self.rows.dense is None else self.rows.dense.x, self.weighting.table


def make_case(
    n_messages: int,
    architecture: Architecture = Architecture(),  # noqa: B008
    *,
    width: int = 8,
    dtype: torch.dtype = torch.float64,
    lengths: list[int] | None = None,
) -> Case:
    """Random inputs; values are float32 numbers in any dtype. The last table rows feed no message.

    Without `lengths` of segments there are empty ones at the start, in the middle and at the end.
    """
    random = torch.Generator().manual_seed(n_messages + 1000 * architecture.layers)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    def some_of(n: int, *shape: int) -> Tensor:
        return torch.randint(n, shape, generator=random, dtype=torch.int32)

    def both(*shape: int, around: float = 0.0) -> Tensor:
        return around + normal(2, *shape) / width**0.5

    n_table, n_weights, n_inputs = 4 + n_messages // 4, 3 + n_messages // 5, 5
    table = normal(n_table, 2 * width)
    x = Dense(normal(n_messages, n_inputs), normal(n_inputs, 2 * width)) if architecture.dense else None
    weights = GatedWeights(
        second=both(width, width) if architecture.layers == 2 else None,
        second_bias=both(width) if architecture.layers == 2 else None,
        scale=both(width, around=1.0) if architecture.norm else None,
        shift=both(width) if architecture.norm else None,
    )
    return Case(
        Rows(table, incidence(some_of(n_table - 2, n_messages, 2), n_table), x),
        weights,
        Weighting(normal(n_weights, width), incidence(some_of(n_weights - 1, n_messages, 1), n_weights)),
        segments(lengths_with_gaps(n_messages) if lengths is None else lengths),
    )


def incidence(rows: Tensor, n_table: int) -> Incidence:
    """Message m uses the table rows `rows[m]`; the transpose is made here, one table row after the other."""
    users = [[m for m, used in enumerate(rows.tolist()) for row in used if row == t] for t in range(n_table)]
    counts = torch.tensor([0, *map(len, users)])
    return Incidence(
        rows=rows.reshape(-1),
        ptr=torch.arange(rows.shape[0] + 1, dtype=torch.int32) * rows.shape[1],
        messages=torch.tensor([m for used_by in users for m in used_by], dtype=torch.int32),
        messages_ptr=counts.cumsum(0).to(torch.int32),
    )


def segments(lengths: list[int]) -> Segments:
    """Consecutive segments of these lengths."""
    counts = torch.tensor(lengths, dtype=torch.int64)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Segments(ptr.to(torch.int32), torch.repeat_interleave(counts).to(torch.int32))


def lengths_with_gaps(n: int) -> list[int]:
    """Lengths that add up to n: none first, none last, none in between, one long segment, and short ones."""
    lengths, left = [0, 0, n // 3, 0], n - n // 3
    while left > 0:
        lengths.append(min(left, 1 + len(lengths) % 5))
        left -= lengths[-1]
        if len(lengths) % 4 == 0:
            lengths.append(0)
    return [*lengths, 0, 0]


def memory(keep: bool) -> Scratch | None:
    """What the ops take as `keep`: memory of its own, in which a forward leaves what its backward needs; or nothing."""
    return Scratch() if keep else None


def cast(node: Any, dtype: torch.dtype) -> Any:
    """The same (nested) tuples with every floating tensor in `dtype`."""
    if isinstance(node, Tensor):
        return node.to(dtype) if node.is_floating_point() else node
    if isinstance(node, tuple):
        children = [cast(child, dtype) for child in node]
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
    return node


def assert_is_derivative(op: Callable[..., Tensor], *leaves: Tensor | None) -> None:
    """Hand-derived gradients of `op` equal difference quotients, for every leaf there is.

    At a width of 4, third derivatives reach 1e3 through the LayerNorm: truncation 1e-10/6 · 1e3, rounding 1e-16/1e-5.
    """
    real = [leaf.clone().requires_grad_() for leaf in leaves if leaf is not None]

    def compute(*values: Tensor) -> Tensor:
        given = iter(values)
        return op(*(None if leaf is None else next(given) for leaf in leaves))

    assert torch.autograd.gradcheck(compute, real, eps=1e-5, atol=1e-7, rtol=1e-6)


def tensors_of(node: Any) -> list[Tensor]:
    """All tensors of (nested) tuples."""
    if isinstance(node, Tensor):
        return [node]
    return [tensor for child in node for tensor in tensors_of(child)] if isinstance(node, tuple) else []


def plain_update(rows: Rows, weights: GatedWeights) -> Tensor:
    """p of every message (messages, D), from the formulas in the docstring of the op. Differentiable by autograd."""
    z = counts(rows.incidence, rows.table.shape[0]).to(rows.table.dtype) @ rows.table
    if rows.dense is not None:
        z = z + rows.dense.x @ rows.dense.weight
    core, gate = z.chunk(2, 1)
    if weights.second is not None and weights.second_bias is not None:
        core = silu(core) @ weights.second[0] + weights.second_bias[0]
        gate = silu(gate) @ weights.second[1] + weights.second_bias[1]
    if weights.scale is not None and weights.shift is not None:
        core = normalised(core) * weights.scale[0] + weights.shift[0]
        gate = normalised(gate) * weights.scale[1] + weights.shift[1]
    return silu(core) * torch.sigmoid(gate)


def plain_message(case: Case) -> Tensor:
    """out[s] = Σ_m p_m ⊙ w_m (segments, D), over dense matrices."""
    p = plain_update(case.rows, case.weights)
    w = counts(case.weighting.incidence, case.weighting.table.shape[0]).to(p.dtype) @ case.weighting.table
    belongs = torch.zeros(case.segments.ptr.shape[0] - 1, case.n_messages, dtype=p.dtype)
    for segment, (start, end) in enumerate(zip(case.segments.ptr[:-1], case.segments.ptr[1:], strict=True)):
        belongs[segment, start:end] = 1
    return belongs @ (p * w)


def counts(incidence: Incidence, n_table: int) -> Tensor:
    """How often message m uses table row t (messages, T), float64."""
    n_messages = incidence.ptr.shape[0] - 1
    dense = torch.zeros(n_messages, n_table, dtype=torch.float64)
    for m, row in enumerate(incidence.rows.view(n_messages, -1).tolist() if n_messages else []):
        for t in row:
            dense[m, t] += 1
    return dense


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def normalised(y: Tensor) -> Tensor:
    """LayerNorm before its scale and shift: variance with 1/n, and 1e-5 added."""
    y = y - y.mean(1, keepdim=True)
    return y / torch.sqrt((y * y).mean(1, keepdim=True) + 1e-5)
