"""The sub-pixel convolution of Stage B: detail inside a cell of the semantics."""

import torch
import torch.nn.functional as F

from wuerstchen.config import StageBModel
from wuerstchen.models.stage_b import StageB, subpixel_factor

CHANNELS = 3


def network(subpixel: int = CHANNELS, **changes: object) -> StageB:
    torch.manual_seed(0)
    sizes = {"widths": [8, 16], "blocks": [1, 1], "heads": [0, 2], "semantics": [True, True]}
    sizes |= {"semantic_channels": 6, "condition_width": 8, "text_width": 8, "time_width": 8}
    sizes |= {"subpixel_channels": subpixel, "predicts": "data"}
    made = StageB(StageBModel.model_validate({**sizes, **changes})).eval()
    torch.nn.init.normal_(made.head[1].weight, std=0.1)  # type: ignore[arg-type]
    return made


def test_it_is_a_transposed_convolution_of_the_size_of_a_cell() -> None:
    stage_b, semantics = network(), torch.randn(2, 6, 3, 2)
    assert stage_b.subpixel is not None
    factor = subpixel_factor(stage_b.config.patch)
    weight = stage_b.subpixel[0].weight.view(CHANNELS, factor, factor, 6).permute(3, 0, 1, 2)  # type: ignore[operator]
    expected = F.conv_transpose2d(semantics, weight, stride=factor)
    torch.testing.assert_close(stage_b.subpixel(semantics), expected)


def test_positions_of_a_cell_differ_where_all_cells_are_the_same() -> None:
    """Interpolation of equal cells is flat; the sub-pixel convolution is not."""
    semantics = torch.randn(1, 6, 1, 1).expand(1, 6, 3, 3)
    text = torch.zeros(1, 2, 8)
    for subpixel, flat in ((0, True), (CHANNELS, False)):
        stage_b = network(subpixel)
        with torch.no_grad():
            condition = stage_b.condition(semantics, text, (32, 32))
        read = condition.down[0].semantics
        assert read is not None
        spread = float(read.std(dim=(2, 3)).max())
        assert spread < 1e-5 if flat else spread > 1e-2


def test_all_patch_sizes_and_canvases_run_with_it() -> None:
    for patch in (1, 2, 4):
        stage_b = network(patch=patch)
        semantics = torch.randn(1, 6, 3, 5)
        size = (8 * patch, 12 * patch)
        with torch.no_grad():
            condition = stage_b.condition(semantics, torch.zeros(1, 2, 8), size)
            noise = stage_b(torch.randn(1, 4, *size), torch.tensor([0.5]), condition)
        assert noise.shape == (1, 4, *size)
