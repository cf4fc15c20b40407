"""Grids: the values that a weight can take, asked for in rows and in columns."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import (
    MINMAX,
    MSE,
    AffineGrid,
    CodebookFormat,
    Grid,
    LookupGrid,
    LutFormat,
    MixedFormat,
    MixedGrid,
    Shape,
    UniformFormat,
    WeightFormat,
    parse_weight_format,
)
from mezzotint.formats import grid as grid_module
from mezzotint.rounding import fake_quantize
from tests.formats.strategies import NAMES, normal, weights

ROWS = 4
CODEBOOKS = (
    *(f"kmeans{bits}/{g}" for bits in (1, 3, 8) for g in ("tensor", "channel")),
    *(f"lut{bits}/channel" for bits in (1, 3, 6)),
)
MIXED = (
    "mixed/int2:1,int3:2,int4:1",
    "mixed/uint1:3,uint8:1",
    "mixed/int1:1,int5:3",
    "mixed/kmeans1:2,uint2:1,uint3:1",
    "mixed/lut1:1,lut4:3",
)
SOME = (
    "int3/channel",
    "int1/group8",
    "uint4/group8",
    "int8/tensor",
    *CODEBOOKS[2:4],
    "lut3/channel",
    *MIXED,
)
FEW_CODES = ("int1/tensor", "int2/channel", "uint3/group8", "kmeans2/channel", *MIXED[::2])
EVERY_KIND = pytest.mark.parametrize("name", SOME)
ANY = st.sampled_from((*NAMES, *CODEBOOKS, *MIXED))
FOUR_ROWS = weights(rows=ROWS, least_rows=ROWS)


def parsed(name: str) -> WeightFormat:
    found = parse_weight_format(name)
    assert found is not None
    return found


def grid_of(fmt: WeightFormat, weight: Tensor) -> Grid:
    """With an order of channels where there is one to choose."""
    if isinstance(fmt, MixedFormat):
        return fmt.grid(weight, MINMAX, torch.tensor([2, 0, 3, 1]))
    return fmt.grid(weight, MINMAX)


def width_of_rows(fmt: WeightFormat) -> list[int]:
    """Bits of each output channel."""
    if isinstance(fmt, MixedFormat):
        stored = [w for w, n in zip(fmt.widths, fmt.counts, strict=True) for _ in range(n)]
        return [stored[place] for place in (2, 0, 3, 1)]
    assert isinstance(fmt, UniformFormat | CodebookFormat | LutFormat)
    return [fmt.width] * ROWS


def stored_grid(fmt: WeightFormat, tensors: dict[str, Tensor], shape: Shape) -> Grid:
    """The grid that a stored weight lies on."""
    grids, order = [each.grid for each in fmt.segments(tensors, shape)], fmt.order(tensors)
    return grids[0] if order is None else MixedGrid(tuple(grids), order)


class TestStoring:
    @given(name=ANY, weight=FOUR_ROWS)
    def test_a_value_on_the_grid_survives(self, name: str, weight: Tensor):
        fmt, shape = parsed(name), tuple(weight.shape)
        grid = grid_of(fmt, weight)
        tensors = fmt.store(grid, grid.nearest(weight))
        worth = fmt.decode(tensors, shape)
        for each in (grid, stored_grid(fmt, tensors, shape)):
            again = fmt.store_values(each, worth)
            assert torch.equal(fmt.decode(again, shape), worth)
            if not isinstance(fmt, CodebookFormat):
                assert all(torch.equal(again[part], tensors[part]) for part in tensors)

    @pytest.mark.parametrize("name", CODEBOOKS[:4])
    def test_it_keeps_its_code_where_levels_differ(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 700)
        tensors = fmt.encode(weight, MINMAX)
        again = fmt.store_values(fmt.grid(weight, MINMAX), fmt.decode(tensors, (ROWS, 700)))
        assert all(torch.equal(again[part], tensors[part]) for part in tensors)

    @given(name=ANY, weight=FOUR_ROWS)
    def test_what_is_stored_are_values_of_the_grid(self, name: str, weight: Tensor):
        fmt, shape = parsed(name), tuple(weight.shape)
        grid = grid_of(fmt, weight)
        codes = grid.nearest(weight)
        worth = fmt.decode(fmt.store(grid, codes), shape)
        assert torch.equal(worth, grid.values(codes))
        for row, width in zip(worth, width_of_rows(fmt), strict=True):
            blocks = row.split(8) if name.endswith("group8") else [row]
            assert all(block.unique().numel() <= 2**width for block in blocks)

    @given(name=ANY, weight=FOUR_ROWS)
    def test_encoding_is_rounding_to_nearest(self, name: str, weight: Tensor):
        fmt = parsed(name)
        grid = fmt.grid(weight, MSE)
        stored = fmt.store(grid, grid.nearest(weight))
        encoded = fmt.encode(weight, MSE)
        assert all(torch.equal(stored[part], encoded[part]) for part in encoded)

    @EVERY_KIND
    def test_codes_may_come_in_pieces(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 19)
        grid = grid_of(fmt, weight)
        codes = grid.nearest(weight)
        whole, pieces = fmt.store(grid, codes), fmt.store(grid, codes.split([1, 2, 1]))
        assert all(torch.equal(whole[part], pieces[part]) for part in whole)

    @EVERY_KIND
    def test_large_weights_are_rounded_piece_by_piece(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ):
        fmt, weight = parsed(name), normal(ROWS, 3, 3, 3)
        grid = grid_of(fmt, weight)
        (whole,) = grid.nearest_rows(weight)
        monkeypatch.setattr(grid_module, "PIECE", 30)
        pieces = list(grid.nearest_rows(weight))
        assert len(pieces) == ROWS
        assert torch.equal(torch.cat(pieces), whole)


class TestRefusals:
    @EVERY_KIND
    def test_values_off_the_grid_are_refused(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 19)
        grid = grid_of(fmt, weight)
        worth = grid.values(grid.nearest(weight))
        worth[2, 3] += 1e-3
        with pytest.raises(FormatError, match="1 of 76 values do not lie on the grid"):
            fmt.store_values(grid, worth)
        worth[2, 3] = torch.nan
        with pytest.raises(FormatError, match="1 of 76 values do not lie on the grid"):
            fmt.store_values(grid, worth)

    @pytest.mark.parametrize(
        "name", ["int3/channel", "kmeans3/tensor", "lut3/channel", "mixed/int2:1,int3:3"]
    )
    def test_codes_that_do_not_fit_are_refused(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 19)
        grid = grid_of(fmt, weight)
        codes = grid.nearest(weight)
        codes[1, 1] = 8
        with pytest.raises(FormatError, match="codes hold values that do not fit"):
            fmt.store(grid, codes)

    @EVERY_KIND
    def test_codes_of_another_shape_are_refused(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 19)
        grid = grid_of(fmt, weight)
        codes = grid.nearest(weight)
        for bad in (codes[:3], codes[:, :18]):
            with pytest.raises(FormatError, match="met a grid of"):
                fmt.store(grid, bad)

    @EVERY_KIND
    @pytest.mark.parametrize("shape", [(4, 18), (3, 19), (76,)], ids=str)
    def test_a_weight_of_another_shape_is_refused(self, name: str, shape: tuple[int, ...]):
        grid = grid_of(parsed(name), normal(ROWS, 19))
        with pytest.raises(FormatError, match="met a grid for 4 rows of 19"):
            list(grid.nearest_rows(torch.zeros(shape)))

    @pytest.mark.parametrize(
        ("name", "other"),
        [
            ("int3/channel", "int4/channel"),
            ("int3/channel", "int3/tensor"),
            ("int3/channel", "uint3/channel"),
            ("uint3/channel", "int3/channel"),
            ("int3/group4", "int3/group8"),
            ("int3/group4", "kmeans3/channel"),
            ("kmeans3/channel", "int3/channel"),
            ("kmeans3/channel", "kmeans4/channel"),
            ("kmeans3/channel", "kmeans3/tensor"),
            ("mixed/int2:1,int3:3", "int3/channel"),
            ("mixed/int2:1,int3:3", "mixed/int2:2,int3:2"),
            ("mixed/int2:1,int3:3", "mixed/int2:1,int4:3"),
            ("mixed/int2:1,int3:3", "mixed/uint2:1,uint3:3"),
        ],
    )
    def test_the_grid_of_another_format_is_refused(self, name: str, other: str):
        weight = normal(ROWS, 19)
        grid = parsed(other).grid(weight, MINMAX)
        with pytest.raises(FormatError):
            parsed(name).store(grid, torch.zeros(ROWS, 19, dtype=torch.uint8))

    @pytest.mark.parametrize("bad", [0.3, -1.0, 8.0, torch.nan])
    def test_zero_points_that_are_no_code_are_refused(self, bad: float):
        fmt, weight = UniformFormat(3, symmetric=False), normal(ROWS, 19)
        grid = fmt.grid(weight, MINMAX)
        grid = replace(grid, zero_point=torch.full((ROWS, 1), bad))
        with pytest.raises(FormatError, match="zero points"):
            fmt.store(grid, grid.nearest(weight))

    @pytest.mark.parametrize("bad", [0.0, -1.0, torch.inf, torch.nan, 1.001])
    def test_scales_that_cannot_be_stored_are_refused(self, bad: float):
        fmt, weight = UniformFormat(3, granularity="group", group_size=8), normal(ROWS, 19)
        grid = replace(fmt.grid(weight, MINMAX), scale=torch.full((ROWS, 3), bad))
        with pytest.raises(FormatError, match="scale"):
            fmt.store(grid, torch.zeros(ROWS, 19, dtype=torch.uint8))

    @pytest.mark.parametrize("levels", [[0.0, 1.001], [1.0, 0.0], [0.0, torch.inf]], ids=str)
    def test_levels_that_cannot_be_stored_are_refused(self, levels: list[float]):
        fmt = CodebookFormat(1, "tensor")
        grid = LookupGrid(torch.tensor([levels]), (ROWS, 19), dtype=torch.bfloat16)
        with pytest.raises(FormatError, match=r"levels|codebook"):
            fmt.store(grid, torch.zeros(ROWS, 19, dtype=torch.uint8))


class TestNearest:
    @given(name=st.sampled_from(FEW_CODES), weight=FOUR_ROWS)
    def test_no_other_code_is_nearer(self, name: str, weight: Tensor):
        fmt = parsed(name)
        grid = grid_of(fmt, weight)
        worth = grid.values(grid.nearest(weight)).double()
        found = (worth - weight.double()).abs()
        widths = torch.tensor(width_of_rows(fmt)).view(-1, 1)
        for code in range(2 ** int(widths.max())):
            codes = torch.full(weight.shape, code, dtype=torch.uint8)
            codes = codes.minimum((2**widths - 1).to(torch.uint8))
            other = grid.values(codes).double()
            # Where two are as near as float32 can tell, either will do.
            slack = 1e-6 * (worth.abs() + other.abs() + weight.double().abs()) + 1e-37
            assert bool((found <= (other - weight.double()).abs() + slack).all())

    @EVERY_KIND
    @pytest.mark.parametrize(
        "columns",
        [slice(0, 1), slice(7, 9), slice(18, 19), slice(None), torch.tensor([11, 3, 18, 3])],
        ids=str,
    )
    def test_columns_are_rounded_as_in_the_whole(self, name: str, columns: slice | Tensor):
        weight = normal(ROWS, 19)
        grid = grid_of(parsed(name), weight)
        codes = grid.nearest(weight)
        found = grid.nearest(weight[:, columns], columns)
        assert (found.dtype, found.tolist()) == (torch.uint8, codes[:, columns].tolist())
        assert torch.equal(grid.values(found, columns), grid.values(codes)[:, columns])
        assert torch.equal(grid.codes(grid.values(found, columns), columns), found)
        far = 1.5 * weight
        assert torch.equal(grid.covers(far[:, columns], columns), grid.covers(far)[:, columns])

    @EVERY_KIND
    @pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3), torch.tensor([3, 1])], ids=str)
    def test_rows_are_rounded_as_in_the_whole(self, name: str, rows: slice | Tensor):
        weight = normal(ROWS, 19)
        grid = grid_of(parsed(name), weight)
        part = grid.rows(rows)
        assert part.shape == tuple(weight[rows].shape)
        assert torch.equal(part.nearest(weight[rows]), grid.nearest(weight)[rows])
        worth = grid.values(grid.nearest(weight))
        assert torch.equal(part.values(part.nearest(weight[rows])), worth[rows])
        assert torch.equal(part.covers(1.5 * weight[rows]), grid.covers(1.5 * weight)[rows])

    def test_a_weight_is_covered_up_to_half_a_step_beyond_the_ends(self):
        grid = AffineGrid(2, torch.ones(1, 1), torch.tensor([[1.0]]), (1, 6), 6)
        values = torch.tensor([[-1.6, -1.4, 0.0, 1.9, 2.4, 2.6]])
        assert grid.covers(values).tolist() == [[False, True, True, True, True, False]]
        table = LookupGrid(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]), (1, 6))
        assert torch.equal(table.covers(values), grid.covers(values))

    def test_a_table_may_have_a_scale_for_each_row(self):
        scale, levels = torch.tensor([[0.5], [2.0]]), torch.tensor([[-1.0, 0.0, 1.0]])
        grid = LookupGrid(levels, (2, 3), scale)
        codes = grid.nearest(torch.tensor([[-0.3, 0.2, 9.0], [-0.9, 1.1, -1.1]]))
        assert codes.tolist() == [[0, 1, 2], [1, 2, 0]]
        assert grid.values(codes).tolist() == [[-0.5, 0.0, 0.5], [0.0, 2.0, -2.0]]


class TestParameters:
    @EVERY_KIND
    def test_the_own_ones_change_nothing(self, name: str):
        weight = normal(ROWS, 19)
        grid = grid_of(parsed(name), weight)
        same = grid.with_parameters(grid.parameters)
        codes = grid.nearest(weight)
        assert torch.equal(same.nearest(weight), codes)
        assert torch.equal(same.values(codes), grid.values(codes))

    @EVERY_KIND
    def test_others_are_rounded_to_what_can_be_stored(self, name: str):
        fmt, weight = parsed(name), normal(ROWS, 19)
        grid = grid_of(fmt, weight)
        drawn = {key: old + normal(*old.shape) for key, old in grid.parameters.items()}
        grid = grid.with_parameters(drawn)
        fmt.check(fmt.store(grid, grid.nearest(weight)))

    @EVERY_KIND
    def test_gradients_pass_to_what_was_given(self, name: str):
        weight = normal(ROWS, 19)
        grid = grid_of(parsed(name), weight)
        learned = {key: old.clone().requires_grad_() for key, old in grid.parameters.items()}
        learned_grid = grid.with_parameters(learned)
        learned_grid.values(learned_grid.nearest(weight)).square().sum().backward()
        for parameter in learned.values():
            assert parameter.grad is not None
            assert bool(parameter.grad.any())

    def test_those_of_a_mixture_are_in_the_order_of_the_channels(self):
        weight = normal(ROWS, 19)
        grid = grid_of(parsed("mixed/uint2:1,uint3:2,uint4:1/float32"), weight)
        assert isinstance(grid, MixedGrid)
        low, high = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
        levels = torch.tensor([7.0, 3.0, 15.0, 7.0])
        assert torch.allclose(grid.parameters["scale"][:, 0], (high - low) / levels)

    def test_those_of_some_segments_have_rows_for_their_channels_alone(self):
        weight = normal(ROWS, 19)
        fmt = parsed("mixed/kmeans1:2,uint2:1,uint3:1")
        grid = grid_of(fmt, weight)
        # Channels 1 and 3 have two levels each.
        alone = [CodebookFormat(1).grid(weight[row : row + 1], MINMAX).levels for row in (1, 3)]
        assert torch.equal(grid.parameters["levels"], torch.cat(alone))
        low, high = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
        scale = torch.stack([(high - low)[0] / 3, (high - low)[2] / 7])
        assert torch.allclose(grid.parameters["scale"][:, 0], scale, rtol=0.01)
        assert grid.parameters["zero_point"].shape == (2, 1)
        doubled = grid.with_parameters({"levels": 2 * grid.parameters["levels"]})
        codes = grid.nearest(weight)
        factor = torch.tensor([[1.0], [2.0], [1.0], [2.0]])
        assert torch.equal(doubled.values(codes), factor * grid.values(codes))

    def test_levels_that_cross_keep_their_codes(self):
        grid = LookupGrid(torch.tensor([[-3.0, -1.0, 1.0, 3.0]]), (ROWS, 4))
        crossed = torch.tensor([[-3.0, 2.0, 1.0, 4.0]], requires_grad=True)
        found = grid.with_parameters({"levels": crossed})
        assert torch.equal(found.levels, torch.tensor([[-3.0, 2.0, 2.0, 4.0]]))
        (found.levels * torch.tensor([5.0, 6.0, 7.0, 8.0])).sum().backward()
        assert torch.equal(crossed.grad, torch.tensor([[5.0, 6.0, 7.0, 8.0]]))

    @given(weight=FOUR_ROWS, data=st.data())
    @pytest.mark.parametrize("name", [name for name in SOME if "group" not in name])
    def test_no_parameters_bring_a_row_more_values_than_it_has_codes(
        self, name: str, weight: Tensor, data: st.DataObject
    ):
        fmt = parsed(name)
        grid = grid_of(fmt, weight)
        given = {
            key: old + data.draw(st.floats(-9, 9)) * normal(*old.shape)
            for key, old in grid.parameters.items()
        }
        found = fake_quantize(weight, grid.with_parameters(given))
        for row, width in zip(found, width_of_rows(fmt), strict=True):
            assert len(row.unique()) <= 2**width

    def test_an_unknown_name_is_refused(self):
        grid = grid_of(parsed("int3/channel"), normal(ROWS, 19))
        with pytest.raises(FormatError, match="no parameter 'zero_point'; it has scale"):
            grid.with_parameters({"zero_point": torch.zeros(ROWS, 1)})

    def test_another_shape_is_refused(self):
        grid = grid_of(parsed("int3/channel"), normal(ROWS, 19))
        with pytest.raises(FormatError, match=r"scale has shape \(4,\); the grid needs \(4, 1\)"):
            grid.with_parameters({"scale": torch.ones(ROWS)})
