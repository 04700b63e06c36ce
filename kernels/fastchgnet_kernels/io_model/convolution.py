"""Convolutions: what must be moved, what a tile moves, and the best tile. The theory's touchstone, not an op of CHGNet.

A direct convolution has N = W_out H_out C_out C_in W_ker H_ker products; an input lies in at most R = ⌈W_ker/μ⌉
⌈H_ker/μ⌉ windows. Winograd's F(e×e, r×r) with α = e + r - 1 has N_w = W_out H_out C_out C_in α²/e² products. On chip
are S words. Bounds hold for whatever order of computing; `Bound.status` says where each comes from.
"""

import math
from typing import NamedTuple

from fastchgnet_kernels.io_model.pebble import Step, lower_bound


class Convolution(NamedTuple):
    width: int  # of the output
    height: int
    out_channels: int
    in_channels: int
    kernel: int  # W_ker = H_ker
    stride: int = 1

    @property
    def outputs(self) -> int:
        return self.width * self.height * self.out_channels

    @property
    def products(self) -> int:
        return self.outputs * self.in_channels * self.kernel**2

    @property
    def reuse(self) -> int:
        """R, the most windows that one input element lies in."""
        return math.ceil(self.kernel / self.stride) ** 2

    @property
    def compulsory(self) -> int:
        """Words of inputs, weights and outputs, each once; inputs that no window touches are not counted."""
        seen = math.prod(
            n * self.kernel if self.kernel < self.stride else self.stride * (n - 1) + self.kernel
            for n in (self.width, self.height)
        )
        return (seen + self.kernel**2 * self.out_channels) * self.in_channels + self.outputs


class Bound(NamedTuple):
    words: float
    status: str


def direct_bounds(conv: Convolution, fast_words: float) -> dict[str, Bound]:
    """Lower bounds of the traffic of direct convolution, weakest first."""
    n, r, s = conv.products, conv.reuse, fast_words
    # Step 1 makes products, step 2 sums them; the vertices are products and partial sums, one product less than 2N.
    vertices = 2 * n - conv.outputs
    paper = [
        Step(lambda k: 2 * k * math.sqrt(r * k), lambda k: 2 * k * math.sqrt(r * k)),
        Step(lambda k: max(k - 1, 0), lambda k: k),
    ]
    part = 2 * s * math.sqrt(2 * r * s) + 2 * s  # products and as many sums, and the sums that are there
    return {
        "composite": Bound(lower_bound(vertices, paper, s), "the paper's form as recalled; its algebra checked here"),
        "loomis-whitney": Bound(max(0.0, s * (vertices / part - 1)), "derived here"),
        "x-partition": Bound(max(0.0, 2 * n / math.sqrt(r * s) - 2 * s), "derived here"),
        "compulsory": Bound(conv.compulsory, "every word once"),
    }


class ConvTile(NamedTuple):
    """A block of outputs that stays on chip until it is done: x by y pixels, z channels."""

    x: float
    y: float
    z: float


def direct_traffic(conv: Convolution, tile: ConvTile) -> float:
    """Words that output-stationary blocks move: for every input channel their patch of it and z kernels, outputs once.

    Blocks at the border are smaller than the others; patches overlap by what the kernel reaches over.
    """
    patches = _patches(conv.width, tile.x, conv) * _patches(conv.height, tile.y, conv)
    blocks = math.ceil(conv.width / tile.x) * math.ceil(conv.height / tile.y)
    kernels = conv.kernel**2 * conv.out_channels * blocks
    return conv.in_channels * (patches * math.ceil(conv.out_channels / tile.z) + kernels) + conv.outputs


def _patches(length: int, tile: float, conv: Convolution) -> float:
    """Input elements along one axis that the blocks read, together."""
    blocks = math.ceil(length / tile)
    reach = conv.kernel - min(conv.kernel, conv.stride)  # beyond the last step
    return length * min(conv.kernel, conv.stride) + blocks * reach


def direct_words(conv: Convolution, tile: ConvTile) -> float:
    """Words on chip: the block, its patch of one channel, and one weight."""
    side = (conv.stride * (length - 1) + conv.kernel for length in (tile.x, tile.y))
    return tile.x * tile.y * tile.z + math.prod(side) + 1


def leading_direct_traffic(conv: Convolution, tile: ConvTile) -> float:
    """The same without borders and overlap: outputs C_in (μ²/z + W_ker H_ker/(x y)) + outputs."""
    per_product = conv.stride**2 / tile.z + conv.kernel**2 / (tile.x * tile.y)
    return conv.outputs * conv.in_channels * per_product + conv.outputs


def best_direct_tile(conv: Convolution, fast_words: float, processors: int = 1) -> ConvTile:
    """The minimum of `leading_direct_traffic` for x y z = S per processor: x y = R z, with R = W_ker H_ker/μ²."""
    own, reuse = fast_words / processors, (conv.kernel / conv.stride) ** 2
    side = (reuse * own) ** 0.25
    return ConvTile(side, side, math.sqrt(own / reuse))


def winograd_bounds(conv: Convolution, e: int, fast_words: float) -> dict[str, Bound]:
    """Lower bounds for F(e×e, r×r), stride 1."""
    alpha = e + conv.kernel - 1
    channels = conv.outputs * conv.in_channels / math.sqrt(fast_words)
    return {
        "paper": Bound(channels * alpha * conv.kernel / e, "the paper's form as recalled, up to an unknown constant"),
        "transforms may be spilled": Bound(
            max(0.0, 2 * channels * alpha**2 / e**2 - 2 * fast_words), "derived here; moving transforms comes on top"
        ),
        "transforms on chip": Bound(
            max(0.0, 2 * channels * alpha * conv.kernel / e - 2 * fast_words), "derived here"
        ),
    }  # fmt: skip


def leading_winograd_traffic(conv: Convolution, tile: ConvTile) -> float:
    """Words of blocks kept in the transformed domain, for every channel x y raw inputs and r² z raw weights."""
    per_channel = 1 / tile.z + conv.kernel**2 / (tile.x * tile.y)
    return conv.outputs * conv.in_channels * per_channel + conv.outputs


def best_winograd_tile(
    conv: Convolution, e: int, fast_words: float, processors: int = 1, copies: int = 1
) -> ConvTile:  # fmt: skip
    """The minimum for (α/e)² copies x y z = S per processor: x y = r² z; 2 copies are sums and products of a tile."""
    words = fast_words / processors / copies * (e / (e + conv.kernel - 1)) ** 2
    side = (conv.kernel**2 * words) ** 0.25
    return ConvTile(side, side, math.sqrt(words) / conv.kernel)
