"""The rules of the verdict: which findings blame which stage, and which are notes."""

from dataclasses import replace

import pytest
import torch

from wuerstchen.evaluation.findings import Findings, Loss, judge, paired_loss
from wuerstchen.evaluation.metrics import mean_estimate
from wuerstchen.evaluation.report import Evaluation


def test_a_loss_is_significant_only_beyond_chance() -> None:
    assert paired_loss([True] * 4 + [False], [True] * 4 + [False]) == Loss(0.0, False)
    assert paired_loss([True] * 10, [False] * 5 + [True] * 5) == Loss(0.5, True)
    assert paired_loss([True] * 100, [False] + [True] * 99) == Loss(0.01, False)
    assert paired_loss([True, False], [False, True]) == Loss(0.0, False)


HEALTHY = Findings(
    psnr_a=32.0,
    psnr_b=28.0,
    error_fraction_a=0.3,
    contrast_a=1.0,
    contrast_b=0.98,
    accuracy=(1.0, 0.98, 0.96),
    lost=(Loss(0.0, False), Loss(0.02, False), Loss(0.02, False)),
    captions=100,
    over_chance=1.2,
    std_ratio=1.0,
    overfit_b=1.05,
    overfit_c=1.1,
    training_b=0.2,
    training_c=0.3,
    held_out_b=0.21,
    held_out_c=0.33,
)


def test_of_a_healthy_model_no_stage_stands_out() -> None:
    verdict = judge(HEALTHY)
    assert verdict.stage == "" and len(verdict.sentences) == 1
    assert "objects stay recognisable." in verdict.sentences[0]


@pytest.mark.parametrize(
    ("captions", "text"),
    [
        (1, "stay recognisable as far as 1 caption shows."),
        (20, "stay recognisable as far as 20 captions show."),
        (72, "stay recognisable as far as 72 captions show."),
        (73, "stay recognisable."),  # 3.84 / (73 + 3.84) is 5.0 %
    ],
)
def test_few_captions_do_not_prove_that_objects_stay_recognisable(captions: int, text: str) -> None:
    assert text in judge(replace(HEALTHY, captions=captions)).sentences[0]


def test_a_single_image_has_no_interval() -> None:
    one, two = mean_estimate(torch.tensor([20.0])), mean_estimate(torch.tensor([20.0, 20.0]))
    assert one.interval("{:.2f}".format) == "-"
    assert two.interval("{:.2f}".format) == "20.00 to 20.00"
    (line,) = Evaluation({}, {"stage_a_psnr": one}).lines()
    assert line.endswith("20.00 dB  -  n = 1")


@pytest.mark.parametrize("psnr_b", [28.0, 20.0])
def test_a_loss_of_objects_that_may_be_chance_is_neither_blamed_nor_denied(psnr_b: float) -> None:
    unsure = (Loss(0.0, False), Loss(0.02, False), Loss(0.25, False))
    verdict = judge(replace(HEALTHY, lost=unsure, psnr_b=psnr_b))
    assert verdict.stage == ("" if psnr_b == 28.0 else "b")
    text = "too few captions were tested to tell whether Stage C loses objects"
    assert text in verdict.sentences[0]


@pytest.mark.parametrize(
    ("changes", "stage", "text"),
    [
        ({"psnr_a": 15.0}, "a", "15.0 dB"),
        ({"psnr_b": 20.0, "error_fraction_a": 0.7}, "a", "causes 70%"),
        ({"psnr_b": 20.0, "error_fraction_a": 0.2}, "b", "adds 80%"),
        ({"over_chance": 9.0}, "c", "9.0 times"),
        (
            {
                "accuracy": (1.0, 0.91, 0.34),
                "lost": (Loss(0.0, False), Loss(0.09, True), Loss(0.57, True)),
            },
            "c",
            "34% of the objects are recognised from the caption, compared with 91% from the true",
        ),
        (
            {
                "accuracy": (1.0, 0.5, 0.4),
                "lost": (Loss(0.0, False), Loss(0.5, True), Loss(0.1, True)),
            },
            "b",
            "50% of the objects",
        ),
    ],
)
def test_each_finding_leads_to_its_stage(changes: dict[str, object], stage: str, text: str) -> None:
    verdict = judge(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert verdict.stage == stage
    assert text in verdict.sentences[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"std_ratio": 1.5}, "lower the guidance"),
        ({"std_ratio": 0.5}, "raise the guidance"),
        ({"contrast_b": 0.7}, "Stage B blurs"),
        ({"overfit_c": 2.0}, "Stage C overfits"),
        ({"overfit_c": 5.0, "held_out_c": 0.99}, "5.00 times that on training images, hardly"),
        ({"overfit_b": 2.0}, "Stage B overfits"),
        ({"training_c": 0.99}, "Stage C has learned little"),
    ],
)
def test_what_does_not_limit_is_a_note_after_the_verdict(
    changes: dict[str, object], text: str
) -> None:
    verdict = judge(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert verdict.stage == ""
    assert len(verdict.sentences) == 2 and text in verdict.sentences[1]
