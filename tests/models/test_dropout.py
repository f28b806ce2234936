"""Laws of dropout by image: an image keeps its masks in any batch and when recomputed."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wuerstchen.models.dropout import Dropout, number_dropouts

ONES = torch.ones(4, 3, 50, 50)


def dropped(keys: list[int], x: Tensor = ONES, number: int = 0) -> Tensor:
    layer = Dropout(0.3)
    layer.keys, layer.number = keys, number
    made: Tensor = layer(x)
    return made


def test_an_image_has_the_same_mask_in_any_batch() -> None:
    together = dropped([7, 8, 9, 10])
    for row, key in enumerate([7, 8, 9, 10]):
        assert torch.equal(dropped([key], ONES[:1])[0], together[row])
    assert torch.equal(dropped([10, 7], ONES[:2]), together[[3, 0]])


def test_images_layers_and_repeated_rows_have_masks_of_their_own() -> None:
    masks = [*dropped([1, 2]), *dropped([1, 2], number=1)]  # four rows each: the images twice
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks) == 8


def test_it_drops_with_its_probability_and_keeps_the_mean() -> None:
    made = dropped([1, 2, 3, 4])
    assert abs(float((made == 0).float().mean()) - 0.3) < 0.01
    assert torch.allclose(made[made != 0], torch.tensor(1 / 0.7))


def test_it_does_nothing_outside_training() -> None:
    layer = Dropout(0.3).eval()
    layer.keys = [1, 2, 3, 4]
    assert layer(ONES) is ONES
    assert Dropout(0.0)(ONES) is ONES


def test_without_keys_it_is_torch_dropout() -> None:
    torch.manual_seed(0)
    found = Dropout(0.3)(ONES)
    torch.manual_seed(0)
    assert torch.equal(found, nn.Dropout(0.3)(ONES))


def test_a_recomputed_block_has_the_same_gradients() -> None:
    block = nn.Sequential(nn.Linear(6, 6), Dropout(0.5), nn.Linear(6, 6), Dropout(0.5))
    (first, second) = number_dropouts([block])
    assert (first.number, second.number) == (0, 1)
    first.keys = second.keys = [3, 5]
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    gradients = []
    for again in (False, True):
        block.zero_grad()
        # Without the state of torch's own stream, which is none of ours.
        out = (
            checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
            if again
            else block(x)
        )
        out.square().sum().backward()
        gradients.append([p.grad.clone() for p in block.parameters() if p.grad is not None])
    assert (
        all(torch.equal(a, b) for a, b in zip(*gradients, strict=True)) and len(gradients[0]) == 4
    )
