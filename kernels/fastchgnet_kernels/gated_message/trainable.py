"""The gated message under autograd, with the gradients of its weights, for values alone or with tangents (`dual`).

Saves, blocks and launches; the maths is in `dual`. Activations are kept for the backward up to an amount; beyond it
blocks are computed again, and what stays in memory between the two is tables, not messages.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastchgnet_kernels import segment_sum
from fastchgnet_kernels.gated_message import dual
from fastchgnet_kernels.gated_message.function import Segments
from fastchgnet_kernels.gated_message.rows import row_blocks, segment_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import GatedWeights, Incidence

BLOCK_ROWS = 4096  # twice as many as where there are no tangents: there are more calls to a block
KEEP_BYTES = 192 * 2**20  # of activations of one call; computing them again takes a fifth of a step


class Dual(NamedTuple):
    """A value and its derivative along one direction; None where no direction is followed."""

    value: Tensor
    tangent: Tensor | None


class Structure(NamedTuple):
    """Who reads what, and who is summed onto whom."""

    rows: Incidence  # table rows of each message, a constant number
    weighting: Incidence | None  # the row of the weights that multiplies a message; None: by nothing
    segments: Segments | None  # None: messages are not summed


def gated_message(
    table: Dual, x: Dual | None, x_weight: Tensor | None, weights: GatedWeights, weight: Dual | None, to: Structure
) -> Dual:
    """out_s = Σ_{m in s} p_m ⊙ weight[m], (segments, D), or p (messages, D) where nothing is summed.

    z_m = Σ_k table[rows[m, k]] + x_m x_weight, table (T, 2D), x (messages, F), weight (W, D).
    """
    nothing = Dual(None, None)  # type: ignore[arg-type]
    out, out_dot = _GatedMessage.apply(*table, *(x or nothing), x_weight, *(weight or nothing), *weights, to)  # type: ignore[no-untyped-call]
    return Dual(out, out_dot)


class _Inputs(NamedTuple):
    table: Tensor
    table_dot: Tensor | None
    x: Tensor | None
    x_dot: Tensor | None
    x_weight: Tensor | None
    weight: Tensor | None
    weight_dot: Tensor | None

    def block(self, lo: int, hi: int, to: Structure, w: GatedWeights, new: Scratch) -> dual.Saved:
        """The MLP on the messages lo:hi."""
        z = self._pre_activation(self.table, self.x, lo, hi, to)
        z_dot = None if self.table_dot is None else self._pre_activation(self.table_dot, self.x_dot, lo, hi, to)
        return dual.forward(z, z_dot, w, new)

    def _pre_activation(self, table: Tensor, x: Tensor | None, lo: int, hi: int, to: Structure) -> Tensor:
        k = to.rows.rows.shape[0] // max(to.rows.ptr.shape[0] - 1, 1)
        z = segment_sum.forward(table, to.rows.rows[k * lo : k * hi], to.rows.ptr[: hi - lo + 1])
        return z if x is None or self.x_weight is None else z.addmm_(x[lo:hi], self.x_weight)


def _blocks(to: Structure) -> Iterator[tuple[int, int, int, int]]:
    """(first segment, last + 1, first message, last + 1); messages are their own segments where none are summed."""
    if to.segments is not None:
        return segment_blocks(to.segments.ptr, BLOCK_ROWS)
    return ((lo, hi, lo, hi) for lo, hi in row_blocks(to.rows.ptr.shape[0] - 1, BLOCK_ROWS))


class _GatedMessage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        inputs, w, to = _Inputs(*arguments[:7]), GatedWeights(*arguments[7:11]), arguments[11]
        ctx.save_for_backward(*inputs, *w)
        ctx.to = to
        n = to.rows.ptr.shape[0] - 1 if to.segments is None else to.segments.ptr.shape[0] - 1
        out = inputs.table.new_zeros(n, inputs.table.shape[1] // 2)
        out_dot = None if inputs.table_dot is None else torch.zeros_like(out)
        temporary = thread_scratch()
        ctx.kept = [] if _activation_bytes(inputs, to) <= KEEP_BYTES else None
        for first, last, lo, hi in _blocks(to):
            saved = inputs.block(lo, hi, to, w, temporary if ctx.kept is None else Scratch())
            if ctx.kept is not None:
                ctx.kept.append(saved)
            p, p_dot = saved.p, None if saved.tangent is None else saved.tangent.p
            if to.weighting is not None and inputs.weight is not None:
                factor, factor_dot = _factors(inputs, to.weighting, lo, hi, temporary)
                if p_dot is not None and factor_dot is not None:
                    weighted = torch.mul(p_dot, factor, out=temporary("weighted dot", p.shape[0], p.shape[1], p))
                    p_dot = weighted.addcmul_(p, factor_dot)
                p = torch.mul(p, factor, out=temporary("weighted", p.shape[0], p.shape[1], p))
            for x, total in ((p, out), (p_dot, out_dot)):
                if x is not None and total is not None:
                    total[first:last] = x if to.segments is None else _reduce(x, to, first, last, lo)
        return out, out_dot

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        grad_out, grad_out_dot = grads
        inputs, w, to = _Inputs(*ctx.saved_tensors[:7]), GatedWeights(*ctx.saved_tensors[7:]), ctx.to
        if inputs.table_dot is None:
            grad_out_dot = None
        sink, grad_w, new = _Sink(inputs, to), w.zeros(), thread_scratch()
        kept, ctx.kept = iter(ctx.kept or ()), None  # once: the backward overwrites what was kept
        for _, _, lo, hi in _blocks(to):
            saved = next(kept, None) or inputs.block(lo, hi, to, w, new)
            grad_p, grad_p_dot = (_spread(grad, to, lo, hi) for grad in (grad_out, grad_out_dot))
            assert grad_p is not None
            if to.weighting is not None and inputs.weight is not None:
                factor, factor_dot = _factors(inputs, to.weighting, lo, hi, new)
                sink.add_weight(grad_p, grad_p_dot, saved, lo, hi)
                grad_p.mul_(factor)
                if grad_p_dot is not None and factor_dot is not None:
                    grad_p.addcmul_(grad_p_dot, factor_dot)
                    grad_p_dot.mul_(factor)
            if grad_p_dot is None or sink.z_dot is None:
                dual.backward(grad_p, saved, w, new, grad_w, sink.z[lo:hi])
            else:
                out, out_dot = sink.z[lo:hi], sink.z_dot[lo:hi]
                dual.dual_backward(grad_p, grad_p_dot, saved, w, new, grad_w, out=out, out_dot=out_dot)
            sink.add_inputs(lo, hi)
        return (*sink.gradients(), *grad_w, None)


def _activation_bytes(inputs: _Inputs, to: Structure) -> int:
    """What the blocks of all messages leave in memory: 13 arrays of D columns, and as many for tangents."""
    arrays = 13 if inputs.table_dot is None else 26
    d, itemsize = inputs.table.shape[1] // 2, inputs.table.itemsize
    return arrays * d * itemsize * (to.rows.ptr.shape[0] - 1)


def _factors(inputs: _Inputs, incidence: Incidence, lo: int, hi: int, new: Scratch) -> tuple[Tensor, Tensor | None]:
    """What the messages lo:hi are multiplied by, and its tangent."""
    rows, weight = incidence.rows[lo:hi], inputs.weight
    assert weight is not None
    size = (hi - lo, weight.shape[1], weight)
    factor = torch.index_select(weight, 0, rows, out=new("factor", *size))
    if inputs.weight_dot is None:
        return factor, None
    return factor, torch.index_select(inputs.weight_dot, 0, rows, out=new("factor dot", *size))


def _reduce(x: Tensor, to: Structure, first: int, last: int, lo: int) -> Tensor:
    assert to.segments is not None
    assert to.weighting is not None
    order = to.weighting.ptr  # 0, 1, 2 …: the messages of a block are summed in the order they lie in
    return segment_sum.forward(x, order[: x.shape[0]], to.segments.ptr[first : last + 1] - lo)


def _spread(grad: Tensor | None, to: Structure, lo: int, hi: int) -> Tensor | None:
    """The gradient of the messages lo:hi, to be overwritten."""
    if grad is None:
        return None
    return grad[lo:hi].clone() if to.segments is None else grad.index_select(0, to.segments.of_message[lo:hi])


class _Sink:
    """Collects the gradients of the inputs, block by block."""

    def __init__(self, inputs: _Inputs, to: Structure) -> None:
        n, (_, width) = to.rows.ptr.shape[0] - 1, inputs.table.shape
        self.inputs, self.to = inputs, to

        def rows(like: Tensor | None, columns: int) -> Tensor | None:
            return None if like is None else like.new_empty(n, columns)

        self.z, self.z_dot = inputs.table.new_empty(n, width), rows(inputs.table_dot, width)
        self.weight, self.weight_dot = rows(inputs.weight, width // 2), rows(inputs.weight_dot, width // 2)
        self.x, self.x_dot = (None if x is None else torch.empty_like(x) for x in (inputs.x, inputs.x_dot))
        self.x_weight = None if inputs.x_weight is None else torch.zeros_like(inputs.x_weight)

    def add_weight(self, grad: Tensor, grad_dot: Tensor | None, saved: dual.Saved, lo: int, hi: int) -> None:
        """The gradients of the factors of the messages lo:hi."""
        assert self.weight is not None
        torch.mul(grad, saved.p, out=self.weight[lo:hi])
        if grad_dot is not None and saved.tangent is not None and self.weight_dot is not None:
            self.weight[lo:hi].addcmul_(grad_dot, saved.tangent.p)
            torch.mul(grad_dot, saved.p, out=self.weight_dot[lo:hi])

    def add_inputs(self, lo: int, hi: int) -> None:
        """Those of the messages' own inputs, once those of their pre-activations are there."""
        inputs = self.inputs
        for z, x, grad_x in ((self.z, inputs.x, self.x), (self.z_dot, inputs.x_dot, self.x_dot)):
            if z is not None and x is not None and grad_x is not None:
                assert inputs.x_weight is not None
                assert self.x_weight is not None
                torch.mm(z[lo:hi], inputs.x_weight.T, out=grad_x[lo:hi])
                self.x_weight.addmm_(x[lo:hi].T, z[lo:hi])

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Of all inputs, in their order."""
        table, table_dot = (_gather_transposed(grad, self.to.rows) for grad in (self.z, self.z_dot))
        weight, weight_dot = (_gather_transposed(grad, self.to.weighting) for grad in (self.weight, self.weight_dot))
        return table, table_dot, self.x, self.x_dot, self.x_weight, weight, weight_dot


def _gather_transposed(grad: Tensor | None, incidence: Incidence | None) -> Tensor | None:
    """Rows of messages summed onto the table rows they came from."""
    if grad is None or incidence is None:
        return None
    return segment_sum.forward(grad, incidence.messages, incidence.messages_ptr)
