"""Laws of a plan: what it counts is what the networks are, and its sums hold together."""

import dataclasses
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import run, values
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wuerstchen import cli, weights
from wuerstchen.config import Config, LoraConfig, TextConfig, dump, load, parse
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.hardware import DEVICES, find_device, watts_of
from wuerstchen.lora import add_lora
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.planning import Assumptions, Plan, parse_bytes, plan
from wuerstchen.planning.blank import PUBLISHED, blank_text, text_sizes, with_base_sizes
from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.estimate import costs
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import (
    Layout,
    Parameters,
    count_parameters,
    largest_micro,
    step_memory,
)
from wuerstchen.planning.table import lines
from wuerstchen.planning.trace import Trace, added, total
from wuerstchen.receipts.carbon import grams_per_kwh
from wuerstchen.receipts.number_format import format_hours, format_kg, format_kwh
from wuerstchen.training.origins import Origin
from wuerstchen.training.stage import RUN_ORDER, RunName, TrainState
from wuerstchen.training.stage_a import Autoencoder
from wuerstchen.training.stage_b import CompressorAndStageB
from wuerstchen.weights.hub import find

ACCELERATOR = Setting("accelerator", bf16=True)
CPU = Setting("cpu", bf16=False)
A100 = find_device("A100-40GB")


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(values(Path("images"), Path("model")), "made")


def dry_run(config: Config, name: RunName) -> DryRun:
    return _dry_run(config.model_dump_json(), name)


@cache
def _dry_run(config: str, name: RunName) -> DryRun:
    return DryRun(name, with_base_sizes(Config.model_validate_json(config)))


def with_training(config: Config, stage: str, **changes: object) -> Config:
    section = getattr(config, stage)
    training = section.training.model_copy(update=changes)
    return config.model_copy(update={stage: section.model_copy(update={"training": training})})


def made(config: Config, **assumed: object) -> Plan:
    return _made(config.model_dump_json(), Assumptions(**{"device": A100, **assumed}))  # type: ignore[arg-type]


@cache
def _made(config: str, assumptions: Assumptions) -> Plan:
    return plan(Config.model_validate_json(config), assumptions)


def counted(network: nn.Module, *inputs: Tensor) -> int:
    """Operations of a real forward pass, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return int(counter.get_total_flops())


def numbers(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def test_parameters_are_those_of_the_real_networks(config: Config) -> None:
    compressor, stage_b = Compressor(config.compressor), StageB(config.stage_b.model)
    stage_b.hold_text()
    both = CompressorAndStageB(compressor, stage_b, frozen=False)
    learn = sum(p.numel() for p in both.parameters() if p.requires_grad)
    still = numbers(both) - learn + numbers(StageA(config.stage_a.model))
    assert count_parameters(dry_run(config, "b")) == Parameters(learn, still)


def test_published_sizes_come_out() -> None:
    config = load("paper-512")
    steps = {name: count_parameters(dry_run(config, name)) for name in ("b", "c")}
    assert steps["c"].trained == 993_636_896
    stage_a, stage_b, compressor = 18_406_894, 1_055_365_280, 20_197_968 + 2 * 16
    assert sum(steps["b"]) == stage_b + compressor + stage_a + 352_984_064
    assert steps["c"].frozen == 693_021_440 + 352_984_064 + stage_a + stage_b + compressor


@pytest.mark.parametrize(("width", "parameters"), [(1024, 352_984_064), (1280, 693_021_440)])
def test_text_encoders_that_are_not_there_have_their_published_sizes(
    width: int, parameters: int
) -> None:
    assert numbers(blank_text(PUBLISHED[width])) == parameters


def test_a_lora_is_planned_around_the_networks_of_its_base() -> None:
    words = [
        "base=stickers",
        "stage_c.training.lora.train_text_encoder=true",
        "stage_c.training.lora.rank=4",
    ]
    stage_c, text = weights.stage_c.load(find("stickers")), weights.text_c.load(find("stickers"))
    frozen = numbers(stage_c, text)
    config = LoraConfig(rank=4)
    add_lora(stage_c, config)
    add_lora(text, config)
    learn = sum(p.numel() for net in (stage_c, text) for p in net.parameters() if p.requires_grad)
    step = dry_run(load("lora", words), "c")
    below = sum(numbers(net) for net in step.stage.frozen_networks().values())
    assert learn == numbers(stage_c, text) - frozen > 0
    assert count_parameters(step) == Parameters(learn, frozen + below)


def test_what_a_subject_keeps_doubles_its_work() -> None:
    words = ["base=stickers", "data.latent_cache=encoded"]
    alone = dry_run(load("subject", [*words, "stage_c.training.prior_preservation=null"]), "c")
    beside = dry_run(load("subject", words), "c")
    for phase in ("forward", "backward"):
        once, twice = (total(each.flops(CPU)[phase]) for each in (alone, beside))
        assert twice == 2 * once > 0


def test_what_a_base_draws_of_a_class_is_in_the_operations_of_every_device(
    config: Config,
) -> None:
    """29 steps of two rows for each image, and what the captions say to every block."""
    small = config
    words = [
        "base=stickers",
        "data.latent_cache=encoded",
        "stage_c.training.prior_preservation.class_images=7",
    ]
    words.append("stage_c.training.lora=null")
    config = load("subject", words)
    stage_c, cells = weights.stage_c.load(find("stickers")), config.data.size * 3 // 128
    length = weights.text_c.load(find("stickers")).length
    text = torch.randn(2, length, stage_c.config.text_width)
    condition = stage_c.condition(text)
    noisy = torch.randn(2, stage_c.config.semantic_channels, cells, cells)
    with FlopCounterMode(display=False) as told:
        stage_c.condition(text)
    drawing = told.get_total_flops() + 29 * counted(stage_c, noisy, torch.rand(2), condition)
    one, two = (made(config, devices=devices).runs[0] for devices in (1, 2))
    assert (one.class_flops, two.class_flops) == (7 * drawing, 14 * drawing)
    more = config.stage_c.training.prior_preservation
    assert more is not None
    more = more.model_copy(update={"class_images": 107})
    longer = made(with_training(config, "stage_c", prior_preservation=more)).runs[0]
    taken = [run.costs.device_hours for run in (one, longer)]
    assert taken[1] > taken[0] and longer.flops == one.flops
    assert "generate a class" in "\n".join(lines(made(config)))
    assert "generate a class" not in "\n".join(lines(made(small)))


def test_a_plan_keeps_the_parts_that_the_config_asks_for(config: Config) -> None:
    step = dry_run(with_training(config, "stage_c", batch_size=24, gradient_accumulation=4), "c")
    found = largest_micro(step, ACCELERATOR, Layout(1, False), 24, 2**40)
    assert (found.micro, found.accumulation) == (6, 4)
    assert found.memory == step_memory(step, ACCELERATOR, Layout(1, False), 6, 4)
    shown = made(
        with_training(config, "stage_c", batch_size=24, gradient_accumulation=4), devices=2
    )
    assert (shown.runs[-1].micro, shown.runs[-1].accumulation) == (3, 4)


def test_amounts_of_small_models_have_a_unit_that_fits(config: Config) -> None:
    shown = (
        format_hours(1 / 3600),
        format_hours(0.009),
        format_hours(0.01),
        format_hours(123.4),
        format_hours(0.0),
    )
    assert shown == ("1 s", "32.4 s", "0.01", "123", "0")
    assert (format_kwh(3.51e-3), format_kwh(3.51e-5)) == ("3.51 Wh", "35.1 mWh")
    assert (format_kg(3.51e-5), format_kg(2.5), format_kg(None)) == ("35.1 mg", "2.5", "–")
    for stage in ("stage_a", "stage_b", "stage_c"):
        config = with_training(config, stage, images=10**6)
    found = "\n".join(lines(made(config)))
    assert "< 0.01" not in found and "e-0" not in found


def test_a_step_that_does_not_fit_is_told_what_it_has() -> None:
    sections: dict[str, Any] = values(Path("images"), Path("model"))
    sections["stage_b"]["pretraining"] = {"images": 8, "batch_size": 1, "width": 8}
    for stage in ("stage_a", "stage_b", "stage_c"):
        sections[stage]["training"]["batch_size"] = 1
    small = parse(sections, "made")
    found = {run.name: run.problem or "" for run in made(small, memory=2**30).runs}
    for step, has, lacks in (
        ("a", "stage_a.training.crop_size", ("checkpointing", "--sharded", "data.size")),
        ("b-pretraining", "data.size", ("checkpointing", "crop")),
        ("c", "stage_c.training.gradient_checkpointing=true", ("crop",)),
    ):
        assert has in found[step]
        assert not any(word in found[step] for word in lacks)


def test_a_base_that_is_elsewhere_has_the_sizes_of_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*args: object, **named: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr("socket.socket.connect", no_network)
    config = load("lora", ["base=warp-ai/wuerstchen"])
    found = made(config)
    assert "warp-ai/wuerstchen is not on this machine" in found.notes[0]
    assert "warp-ai/wuerstchen is not on this machine" in "\n".join(lines(found))
    (only,) = found.runs
    assert only.frozen > 993_636_896
    assert made(load("lora", ["base=stickers"])).notes == tuple(found.assumptions.sentences())


def test_a_base_without_stage_c_is_one_sentence(tmp_path: Path) -> None:
    shutil.copytree(find("stickers"), tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "prior_prior")
    with pytest.raises(ModelFolderError, match="lacks Stage C"):
        made(load("lora", [f"base={tmp_path / 'half'}"]))


def test_no_loss_reads_a_value_off_the_device() -> None:
    """On the meta device there are none to read: every choice of the trainers runs there."""
    sections: dict[str, Any] = values(Path("images"), Path("model"))
    sections["stage_a"]["training"] |= {"perceptual_loss": "vgg16", "vgg16_weights": "vgg16"}
    sections["stage_b"]["training"] |= {"loss_weighting": "adaptive"}
    sections["stage_b"]["pretraining"] = {"images": 8, "batch_size": 2, "width": 8}
    sections["stage_c"]["training"] |= {"loss_weighting": "adaptive", "caption_dropout": 0.5}
    sections["stage_c"]["pretraining"] = {"images": 8, "batch_size": 2, "width": 8}
    every = parse(sections, "made")
    for name in RUN_ORDER:
        for _, state in dry_run(every, name).stage.workloads():
            assert total(dry_run(every, name).trace(CPU, 2, state=state).flops["backward"]) > 0


def test_operations_of_a_forward_pass_are_those_of_real_tensors(config: Config) -> None:
    size, channels = config.data.size, config.compressor.channels
    latent = torch.randn(1, 4, size // 4, size // 4)
    images = torch.rand(1, 3, size, size)
    time, text = torch.rand(1), torch.randn(1, 8, 16)
    autoencoder = Autoencoder(StageA(config.stage_a.model)).train()
    crop = images[:, :, :32, :32]
    found = dry_run(config, "a").trace(CPU, 1, state=TrainState(100, 0)).flops["forward"]
    assert total(found) == counted(autoencoder, crop, torch.ones(1, 1, 1, 1).bool())

    stage_b = StageB(config.stage_b.model)
    stage_b.hold_text()
    both = CompressorAndStageB(Compressor(config.compressor), stage_b, frozen=False).train()
    both.compressor.mapper[1].train()
    cells = torch.randn(1, channels, 3, 3)
    never = torch.zeros(1, 1, 1, 1).bool()
    small = shrink(images)
    real = counted(both, small, latent, time, text, cells, torch.zeros(1), never)
    found = dry_run(config, "b").trace(CPU, 1).flops["forward"]
    assert total(found) == real


def test_checkpoints_are_counted_as_a_second_pass(config: Config) -> None:
    checkpointed = dry_run(with_training(config, "stage_c", gradient_checkpointing=True), "c")
    before, after = dry_run(config, "c").flops(CPU), checkpointed.flops(CPU)
    assert before["forward"] == after["forward"]
    more = total(after["backward"]) - total(before["backward"])
    assert 0.3 * total(before["forward"]) < more < total(before["forward"])


def test_checkpoints_keep_less() -> None:
    words = ["data.size=512", "data.latent_cache=encoded"]
    plain = dry_run(load("tiny", words), "c")
    words.append("stage_c.training.gradient_checkpointing=true")
    checkpointed = dry_run(load("tiny", words), "c")
    peaks = [each.trace(ACCELERATOR, 8).peak for each in (plain, checkpointed)]
    assert peaks[1] < 0.7 * peaks[0]


def test_a_depthwise_convolution_has_as_many_operations_in_each_gradient() -> None:
    x = torch.empty(2, 8, 16, 16, device="meta", requires_grad=True)
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, device="meta")
    trace = Trace([x, *layer.parameters()])
    with trace:
        y = layer(x)
        with trace.phase("backward"):
            torch.autograd.backward(y.sum())
    once = 2 * 2 * 16 * 16 * 8 * 9
    assert trace.flops == {"frozen": {}, "forward": {"tf32": once}, "backward": {"tf32": 2 * once}}


def test_a_trace_knows_the_most_bytes_that_live_at_once() -> None:
    x = torch.empty(1000, device="meta")
    trace = Trace([x])
    with trace:
        y = x + 1
        z = y.view(10, 100) * 2  # two live
        del y
        z = z + 1  # two again
        assert (trace.live, trace.peak) == (4000, 8000)
        del z
    assert trace.live == 0


def test_twice_the_devices_take_half_the_hours_and_as_much_energy(config: Config) -> None:
    one, two = made(config).costs, made(config, devices=2).costs
    assert two.hours == pytest.approx(one.hours / 2)
    assert (two.device_hours, two.kwh, two.co2) == (one.device_hours, one.kwh, one.co2)


def test_money_carbon_and_energy_follow_from_the_hours() -> None:
    given = Assumptions(device=A100, devices=4, utilisation=0.5, grid=370, price=1.5)
    found = costs({"bf16": 312e12 * 3600}, given)
    assert found.device_hours == pytest.approx(2)
    assert found.hours == pytest.approx(0.5)
    assert found.kwh == pytest.approx(0.5)
    assert found.co2 == pytest.approx(0.185)
    assert found.money == pytest.approx(3)


@pytest.mark.parametrize("step", ["b", "c"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sharding_never_raises_memory(config: Config, step: RunName, accumulate: int) -> None:
    each = dry_run(config, step)
    for devices in (2, 4):
        whole = step_memory(each, ACCELERATOR, Layout(devices, False), 4, accumulate)
        sharded = step_memory(each, ACCELERATOR, Layout(devices, True), 4, accumulate)
        assert sharded.total < whole.total
        assert sharded.optimizer == whole.optimizer // devices


def test_several_averages_take_room_each(config: Config) -> None:
    several = with_training(config, "stage_c", ema_decay=(0.9, 0.99, 0.999))
    one = step_memory(dry_run(config, "c"), CPU, Layout(1, False), 2, 1)
    three = step_memory(dry_run(several, "c"), CPU, Layout(1, False), 2, 1)
    assert three.ema == 3 * one.ema
    assert three.total - one.total == 2 * one.ema


def test_the_micro_batch_is_the_largest_that_fits(config: Config) -> None:
    step = dry_run(config, "c")
    sizes = {
        micro: step_memory(step, ACCELERATOR, Layout(1, False), micro, 24 // micro).total
        for micro in (1, 2, 3, 4, 6, 8, 12, 24)
    }
    for room in sorted({*sizes.values(), *(size + 1 for size in sizes.values())}):
        found = largest_micro(step, ACCELERATOR, Layout(1, False), 24, room)
        assert found.micro == max(m for m, size in sizes.items() if size <= room)
        assert found.micro * found.accumulation == 24


@pytest.mark.slow
def test_a_plan_of_the_published_sizes_needs_no_files() -> None:
    found = made(load("paper-1024", ["data.path=/nowhere"]), devices=64)
    assert found.reused == {"a": "models/paper-512"}
    assert [run.name for run in found.runs] == ["b", "c"]
    assert all(run.fits for run in found.runs)


def test_text_sizes_are_read_where_the_folder_is(tmp_path: Path) -> None:
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": {**sizes, "intermediate_size": 384}}))
    key, text = "stage_c.model.text_width", TextConfig()
    origin = Origin("text_c", "published", str(tmp_path))
    found = text_sizes(origin, text, 96, key)
    assert (found.hidden_size, found.num_hidden_layers, found.intermediate_size) == (96, 2, 384)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="expected the config of a CLIP text model"):
        text_sizes(origin, text, 96, key)
    with pytest.raises(ConfigError, match="768, 1024, 1280"):
        text_sizes(origin._replace(folder=str(tmp_path / "none")), text, 96, key)


def test_the_table_has_at_most_100_columns(config: Config) -> None:
    found = made(config, devices=2, price=1.79, sharded=True)
    large = dataclasses.replace(found.runs[0], images=559_104_000, micro=128, accumulation=16)
    shown = lines(dataclasses.replace(found, runs=(large, large, *found.runs)))
    assert max(map(len, shown)) <= 100
    table = shown[2 : shown.index("", 2)]
    assert len({len(line) for line in table}) == 1, "aligned"


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 * 2**30), ("80GB", 80 * 10**9), ("1.5 MiB", 3 * 2**19)]
)
def test_sizes_have_a_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "GiB", "-3GiB", "0GB", "24gib", "1e3GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 24GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "A100-80"], "did you mean A100-80GB?"),
        (["--device", "a100"], "did you mean A100-40GB or A100-80GB?"),
        (["--device", "H1000"], "did you mean H100?"),
        (
            ["stage_c.training.gradient_accumulation=7"],
            "with gradient_accumulation 7 cannot share equally",
        ),
        (["--price", "nan"], "--price must be a finite number, found nan."),
        (["--grid", "nan"], "--grid must be a finite number, found nan."),
        (["--grid", "inf"], "--grid must be a finite number, found inf."),
        (["--mfu", "nan"], "--mfu must be above 0 and at most 1, found nan."),
        (["--device-memory", "lots"], "found 'lots'."),
        (["--devices", "3"], "which 3 devices cannot share equally"),
        (["--devices", "0"], "--devices must be at least 1, found 0."),
        (["--mfu", "2"], "--mfu must be above 0 and at most 1, found 2.0."),
        (["--price", "-1"], "--price must not be negative, found -1.0."),
        (["data.sise=1"], "did you mean 'size'?"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "plan", "tiny", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, error = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert sentence in error and error.count("\n") == 1


def test_a_device_that_is_too_small_is_said_in_one_sentence_each(
    config: Config, tmp_path: Path
) -> None:
    source = tmp_path / "made.yaml"
    source.write_text(dump(config))
    done = run("plan", source, "--device-memory", "1025MiB")
    assert done.returncode == 2
    troubles = done.stderr.splitlines()
    ends = " does not fit: one image at a time needs "
    assert [each.partition(ends)[0] for each in troubles] == ["Stage b", "Stage c"]
    assert "Assumptions:" in done.stdout, "the plan is shown all the same"


def test_a_plan_and_a_receipt_reckon_with_the_same_electricity() -> None:
    """A kilowatt hour that is planned and one that was used weigh the same, and so does a board."""
    assert Assumptions(device=A100).grid == grams_per_kwh("world")
    boards = {"A100-40GB": "NVIDIA A100-PCIE-40GB", "A100-80GB": "NVIDIA A100-SXM4-80GB"}
    for device in DEVICES:
        drivers_name = boards.get(device.name, f"NVIDIA {device.name.replace('-', ' ')}")
        assert device.watts == watts_of(drivers_name), device.name


def test_json_says_what_the_table_says(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "made.yaml"
    source.write_text(dump(config))
    done = run("plan", source, "--json", "--price", "2", "--devices", "2")
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    again = made(config, price=2.0, devices=2)
    assert found == json.loads(json.dumps(again.to_dict()))
    for each in found["runs"]:
        memory = each["memory"]
        assert memory.pop("total") == sum(memory.values())
        assert each["micro"] * each["accumulation"] * 2 == each["batch"]
    assert found["costs"]["money"] == pytest.approx(2 * found["costs"]["device_hours"])


def test_the_published_hours_of_stage_c_are_near() -> None:
    """24,602 A100 hours over four runs (paper, table 2; appendix E.3)."""
    plain = ["stage_c.training.gradient_checkpointing=false"]
    runs = {
        ("paper-512", 500_000 * 1536),
        ("paper-1024", 364_000 * 1536 + 4_000 * 768 + 50_000 * 384),
    }
    flops = [
        {
            kind: n * images
            for kind, n in added(
                dry_run(load(name, plain), "c").flops(ACCELERATOR).values()
            ).items()
        }
        for name, images in runs
    ]
    given = Assumptions(device=A100, utilisation=0.1, grid=370)
    found = costs(added(flops), given)
    assert found.device_hours == pytest.approx(24_602, rel=0.1)
    exact = costs(added(flops), dataclasses.replace(given, utilisation=0.105))
    assert exact.device_hours == pytest.approx(24_602, rel=0.02)
    published = costs({"bf16": 24_602 * 3600 * 31.2e12}, given)
    assert published.co2 == pytest.approx(2_275.68, rel=1e-4)
