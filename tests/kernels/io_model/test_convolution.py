"""Bounds of convolutions lie below whatever a tile attains; the formulas for the best tile are those of a search."""

import itertools
import math

import pytest

from fastchgnet_kernels.io_model.convolution import (
    Convolution,
    ConvTile,
    best_direct_tile,
    best_winograd_tile,
    direct_bounds,
    direct_traffic,
    direct_words,
    leading_direct_traffic,
    leading_winograd_traffic,
    winograd_bounds,
)

LAYERS = [
    Convolution(14, 14, 32, 32, 3),
    Convolution(13, 9, 24, 16, 5),
    Convolution(16, 16, 16, 16, 3, stride=2),
    Convolution(8, 8, 64, 64, 1),
]
LARGE = Convolution(224, 224, 512, 512, 3)


def searched(conv: Convolution, words: float, steps: int = 60) -> float:
    """The least leading traffic of all blocks that fill `words`, sides and channels on a fine grid."""
    grid = [1.09**k for k in range(steps)]
    tiles = (ConvTile(x, y, words / (x * y)) for x, y in itertools.product(grid, grid) if x * y <= words)
    return min(leading_direct_traffic(conv, tile) for tile in tiles)


@pytest.mark.parametrize("words", [64, 256, 1024, 4096])
@pytest.mark.parametrize("conv", LAYERS, ids=str)
def test_no_tile_moves_less_than_any_bound(conv: Convolution, words: int) -> None:
    """All whole tiles whose block, patch and weight fit on chip, border blocks and overlaps counted exactly."""
    sides = list(range(1, max(conv.width, conv.height) + 1))
    channels = [z for z in range(1, conv.out_channels + 1) if z in (1, 2, 3) or z % 4 == 0]
    tiles = (ConvTile(x, y, z) for x, y, z in itertools.product(sides, sides, channels))
    least = min((direct_traffic(conv, tile) for tile in tiles if direct_words(conv, tile) <= words), default=math.inf)
    for name, bound in direct_bounds(conv, words).items():
        assert 0 <= bound.words <= least, name


@pytest.mark.parametrize("conv", [LARGE, Convolution(224, 224, 512, 512, 5), Convolution(112, 112, 512, 512, 3, 2)])
def test_bounds_get_sharper_in_the_order_they_are_listed(conv: Convolution) -> None:
    bounds = direct_bounds(conv, 4096)
    assert bounds["composite"].words < bounds["loomis-whitney"].words < bounds["x-partition"].words


def test_the_papers_form_is_a_factor_of_8_sqrt_2_below_what_is_attained() -> None:
    """N/(4 √(2RS)) against 2N/√(RS); shares rounded up by S/64 take up to 1 - (1 + 1/64)^-1.5 = 2.3 % off it."""
    words = 2048
    bound = direct_bounds(LARGE, words)["composite"].words
    leading = LARGE.products / (4 * math.sqrt(2 * LARGE.reuse * words))
    assert 0.95 * leading <= bound <= leading
    attained = leading_direct_traffic(LARGE, best_direct_tile(LARGE, words)) - LARGE.outputs
    assert attained / leading == pytest.approx(8 * math.sqrt(2), rel=1e-9)


def test_the_best_tile_meets_the_sharpest_bound_in_its_leading_term() -> None:
    words = 1024
    attained = leading_direct_traffic(LARGE, best_direct_tile(LARGE, words)) - LARGE.outputs
    assert attained == pytest.approx(direct_bounds(LARGE, words)["x-partition"].words, rel=1e-4)


@pytest.mark.parametrize("words", [256, 4096, 65536])
@pytest.mark.parametrize("conv", [LARGE, Convolution(224, 224, 512, 512, 5), Convolution(112, 112, 512, 512, 3, 2)])
def test_x_y_is_r_z_is_the_best_of_all_tiles(conv: Convolution, words: int) -> None:
    """The grid's steps of 9 % leave x y at most 4.4 % off, which costs at most (4.4 %)²/2 = 0.1 %."""
    tile = best_direct_tile(conv, words)
    reuse = (conv.kernel / conv.stride) ** 2
    assert tile.x * tile.y == pytest.approx(reuse * tile.z)
    assert tile.x * tile.y * tile.z == pytest.approx(words)
    best = leading_direct_traffic(conv, tile)
    assert best <= searched(conv, words) <= 1.001 * best


def test_with_overlap_and_whole_numbers_the_best_tile_is_within_a_tenth_of_the_search() -> None:
    """Patches overlap by kernel - 1 on each side, (1 + 2/x)² of x y; at x = 24 that is 17 % of half the traffic."""
    words = 2**14
    rounded = ConvTile(*(round(side) for side in best_direct_tile(LARGE, words)))
    sides = [8, 12, 16, 18, 19, 20, 24, 28, 32, 48, 64]
    tiles = (ConvTile(x, y, words // (x * y)) for x, y in itertools.product(sides, sides))
    least = min(direct_traffic(LARGE, tile) for tile in tiles if tile.z >= 1)
    assert direct_traffic(LARGE, rounded) <= 1.1 * least


@pytest.mark.parametrize("processors", [1, 4, 132])
def test_processors_that_share_the_memory_move_the_square_root_of_their_number_more(processors: int) -> None:
    one = leading_direct_traffic(LARGE, best_direct_tile(LARGE, 2**20)) - LARGE.outputs
    several = leading_direct_traffic(LARGE, best_direct_tile(LARGE, 2**20, processors)) - LARGE.outputs
    assert several / one == pytest.approx(math.sqrt(processors))


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("e", [2, 4])
def test_winograds_best_tile_is_that_of_a_search(e: int, copies: int) -> None:
    words = 4096
    tile = best_winograd_tile(LARGE, e, words, copies=copies)
    volume = words / copies * (e / (e + LARGE.kernel - 1)) ** 2
    assert tile.x * tile.y == pytest.approx(LARGE.kernel**2 * tile.z)
    assert tile.x * tile.y * tile.z == pytest.approx(volume)
    grid = [1.05**k for k in range(120)]
    least = min(
        leading_winograd_traffic(LARGE, ConvTile(x, y, volume / (x * y)))
        for x, y in itertools.product(grid, grid)
        if x * y <= volume
    )
    best = leading_winograd_traffic(LARGE, tile)
    assert best <= least <= 1.003 * best


def test_winograds_best_tile_meets_the_bound_with_transforms_on_chip() -> None:
    bounds = winograd_bounds(LARGE, 2, 1024)
    attained = leading_winograd_traffic(LARGE, best_winograd_tile(LARGE, 2, 1024)) - LARGE.outputs
    assert attained == pytest.approx(bounds["transforms on chip"].words, rel=1e-4)
    assert bounds["transforms may be spilled"].words <= bounds["transforms on chip"].words


def test_a_pixel_wise_convolution_is_a_matrix_product() -> None:
    conv = Convolution(8, 8, 64, 64, 1)
    assert conv.reuse == 1
    assert conv.compulsory == 8 * 8 * 64 + 64 * 64 + 8 * 8 * 64
    whole = ConvTile(8, 8, 64)
    assert direct_traffic(conv, whole) == conv.compulsory


def test_inputs_that_a_stride_jumps_over_are_not_counted() -> None:
    conv = Convolution(4, 4, 1, 1, 1, stride=3)
    assert conv.compulsory == 16 + 1 + 16
    assert direct_traffic(conv, ConvTile(4, 4, 1)) == 33
