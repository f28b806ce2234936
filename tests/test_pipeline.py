"""Laws of the pipeline, and equality with diffusers' combined pipeline under shared noise."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from models_small import CHANNELS, small_pipeline
from torch import Tensor

import wuerstchen
from wuerstchen.errors import (
    ConfigError,
    ModelFolderError,
    SaveError,
    SizeError,
    WuerstchenError,
)
from wuerstchen.model_folder import ModelInfo
from wuerstchen.pipeline import Pipeline, PromptWarning

PROMPT = "a red apple"
STEPS_C, STEPS_B = 6, 4
"""What the small model does by default."""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return small_pipeline()


@pytest.fixture(scope="module")
def double() -> Pipeline:
    """In fp64, where sums over a batch and over one picture round alike for all purposes."""
    return small_pipeline().to(dtype=torch.float64)


@pytest.fixture(scope="module")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "saved"
    pipeline.save_pretrained(folder)
    return folder


def pixels(pipeline: Pipeline, prompt: str | list[str] = PROMPT, **arguments: object) -> Tensor:
    """(B, 3, H, W), with seed 3 unless said otherwise."""
    if "generator" not in arguments:
        arguments.setdefault("seed", 3)
    images = pipeline(prompt, output_type="pt", **arguments).images  # type: ignore[arg-type]
    assert isinstance(images, Tensor)
    return images


def difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())


# Randomness


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(pipeline):
    assert torch.equal(pixels(pipeline), pixels(pipeline))
    assert difference(pixels(pipeline), pixels(pipeline, seed=4)) > 0.05


def test_picture_k_of_a_batch_is_the_picture_of_seed_plus_k_alone(double):
    batch = pixels(double, num_images_per_prompt=3, prior_guidance_scale=3.0)
    for k in range(3):
        alone = pixels(double, seed=3 + k, prior_guidance_scale=3.0)
        torch.testing.assert_close(batch[k : k + 1], alone, atol=1e-7, rtol=0)


def test_prompts_of_a_list_are_drawn_as_if_alone_the_first_one_first(double):
    batch = pixels(double, ["a red apple", "a green hat"], num_images_per_prompt=2)
    assert len(batch) == 4
    torch.testing.assert_close(batch[1:2], pixels(double, seed=4), atol=1e-7, rtol=0)
    torch.testing.assert_close(batch[2:3], pixels(double, "a green hat", seed=5), atol=1e-7, rtol=0)


def test_every_picture_reports_its_seed(pipeline):
    assert pipeline(PROMPT, seed=7, num_images_per_prompt=2).seeds == [7, 8]


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_reported_and_draws_the_picture_again(pipeline, seed):
    images, seeds = pipeline(PROMPT, seed=seed, output_type="pt")
    assert torch.equal(images, pixels(pipeline, seed=seeds[0]))
    assert pipeline(PROMPT, seed=seed).seeds != seeds


def test_a_list_of_generators_is_the_same_as_their_seeds(pipeline):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(
        pixels(pipeline, num_images_per_prompt=2, generator=generators),
        pixels(pipeline, num_images_per_prompt=2),
    )


def test_one_generator_for_several_pictures_reports_seeds_that_draw_each_again(double):
    generator = torch.Generator().manual_seed(0)
    images, seeds = double(PROMPT, num_images_per_prompt=2, generator=generator, output_type="pt")
    torch.testing.assert_close(images[1:], pixels(double, seed=seeds[1]), atol=1e-7, rtol=0)


def test_the_global_stream_of_torch_is_neither_used_nor_moved(pipeline):
    torch.manual_seed(1)
    first = pixels(pipeline)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, pixels(pipeline))


def test_a_generator_that_was_used_before_reports_a_seed_that_draws_the_picture_again(pipeline):
    generator = torch.Generator().manual_seed(3)
    first = pipeline(PROMPT, generator=generator, output_type="pt")
    assert first.seeds == [3] and torch.equal(first.images, pixels(pipeline))
    second = pipeline(PROMPT, generator=generator, output_type="pt")
    third = pipeline(PROMPT, generator=[generator], output_type="pt")
    assert len({*first.seeds, *second.seeds, *third.seeds}) == 3
    for images, (seed,) in (second, third):
        assert torch.equal(images, pixels(pipeline, seed=seed))


def test_a_generator_that_is_listed_twice_reports_seeds_that_draw_each_picture_again(double):
    generators = [torch.Generator().manual_seed(3)] * 2
    images, seeds = double(PROMPT, num_images_per_prompt=2, generator=generators, output_type="pt")
    for k, seed in enumerate(seeds):
        torch.testing.assert_close(images[k : k + 1], pixels(double, seed=seed), atol=1e-7, rtol=0)


def test_given_start_noise_takes_the_place_of_the_first_draw(pipeline):
    def after_one_step(**arguments: object) -> Tensor:  # the only one of Stage C: it draws no more
        seen: list[Tensor] = []
        pixels(
            pipeline,
            prior_num_inference_steps=1,
            prior_callback_on_step_end=lambda *told: seen.append(told[3]["latents"].clone()),
            **arguments,
        )
        return seen[0]

    start = torch.randn(1, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(after_one_step(latents=start, seed=8), after_one_step(seed=3))


@pytest.mark.parametrize("seed", [-2, 2**63])
def test_a_seed_out_of_range_is_an_error(pipeline, seed):
    with pytest.raises(ConfigError, match=r"seed must be a whole number between 0 and \d+.*found"):
        pipeline(PROMPT, seed=seed)


# What steers the picture


def test_text_negative_text_guidance_and_steps_change_the_picture(pipeline):
    plain = pixels(pipeline)
    for other in (
        pixels(pipeline, "a green hat"),
        pixels(pipeline, negative_prompt="two birds"),
        pixels(pipeline, prior_guidance_scale=1.0),
        pixels(pipeline, decoder_guidance_scale=3.0),
        pixels(pipeline, prior_num_inference_steps=5),
        pixels(pipeline, num_inference_steps=5),
    ):
        assert difference(plain, other) > 1e-3


def test_an_unused_negative_prompt_changes_nothing(pipeline):
    one = pixels(pipeline, prior_guidance_scale=1.0)
    assert torch.equal(one, pixels(pipeline, prior_guidance_scale=1.0, negative_prompt="two birds"))


def test_guidance_scale_is_another_name_of_the_priors(pipeline):
    assert torch.equal(
        pixels(pipeline, guidance_scale=2.0), pixels(pipeline, prior_guidance_scale=2.0)
    )
    with pytest.raises(ConfigError, match="one of them, not both"):
        pipeline(PROMPT, guidance_scale=2.0, prior_guidance_scale=2.0)


def test_an_empty_prompt_is_allowed_and_guidance_to_it_has_no_direction(double):
    torch.testing.assert_close(
        pixels(double, "", prior_guidance_scale=5.0),
        pixels(double, "", prior_guidance_scale=1.0),
        atol=1e-7,
        rtol=0,
    )


def test_embeddings_take_the_place_of_text_in_stage_c(pipeline):
    embeds = pipeline.encode(pipeline.text_c, [PROMPT])
    empty = pipeline.encode(pipeline.text_c, ["two birds"])
    assert torch.equal(
        pixels(pipeline, prompt_embeds=embeds, negative_prompt_embeds=empty),
        pixels(pipeline, negative_prompt="two birds"),
    )
    images = pipeline(prompt_embeds=embeds, num_images_per_prompt=2, output_type="pt").images
    assert images.shape == (2, 3, 128, 128)


def test_explicit_times_are_walked_as_given(pipeline):
    even = [1 - k / STEPS_C for k in range(STEPS_C + 1)]
    assert difference(pixels(pipeline, prior_timesteps=even), pixels(pipeline)) < 1e-3
    assert difference(pixels(pipeline, prior_timesteps=[1.0, 0.9, 0.0]), pixels(pipeline)) > 1e-2


def test_without_a_number_of_its_own_stage_c_walks_the_published_29_steps(pipeline):
    published = copy.copy(pipeline)
    published.info = ModelInfo(size=128)
    steps = []
    pixels(published, on_step=lambda stage, done, total: steps.append((stage, done, total)))
    assert steps[28] == ("Stage C", 29, 29)
    assert steps[-2:] == [("Stage B", 12, 12), ("Stage A", 1, 1)]


# Forms of input and output


def test_the_forms_of_output_show_the_same_picture(pipeline):
    tensor = pixels(pipeline)
    array = pipeline(PROMPT, seed=3, output_type="np").images
    (picture,) = pipeline(PROMPT, seed=3).images
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert picture.mode == "RGB" and picture.size == (128, 128)
    assert np.abs(np.asarray(picture) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6


def test_latents_are_what_stage_a_decodes(pipeline):
    latent = pipeline(PROMPT, seed=3, output_type="latent").images
    assert latent.shape == (1, 4, 32, 32)
    assert torch.equal(pipeline.image_from_latents(latent), pixels(pipeline))


def test_tensors_that_come_out_can_be_computed_with(pipeline):
    (pixels(pipeline).requires_grad_() * 2).sum().backward()


def test_the_output_is_an_object_and_a_tuple_that_begins_with_the_pictures(pipeline):
    output = pipeline(PROMPT, seed=3, return_dict=False)
    assert output[0] is output.images


@pytest.mark.parametrize(("height", "width"), [(128, 256), (256, 128), (384, 384)])
def test_pictures_have_the_size_that_was_asked_for(pipeline, height, width):
    assert pixels(pipeline, height=height, width=width).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"height": 100}, SizeError, "height must be .* multiple of 128 .* found 100"),
        ({"width": 0}, SizeError, "width must be .* found 0"),
        ({"latents": torch.zeros(1, CHANNELS, 4, 4)}, SizeError, r"\(1, 6, 3, 3\), found"),
        ({"prior_num_inference_steps": 0}, ConfigError, "at least 1, found 0"),
        ({"prior_timesteps": [0.5, 0.5]}, ConfigError, "falling times"),
        ({"decoder_timesteps": [1.5, 0.0]}, ConfigError, "falling times"),
        ({"output_type": "jpg"}, ConfigError, "one of pil, np, pt, latent, found 'jpg'"),
        ({"prompt": None}, ConfigError, "found neither"),
        ({"prompt": []}, ConfigError, "empty list"),
        ({"prompt": ["a", 3]}, ConfigError, "must be text, found int"),
        ({"negative_prompt": ["a", "b"]}, ConfigError, "one for each of the 1 prompts, found 2"),
        ({"num_images_per_prompt": 0}, ConfigError, "at least 1, found 0"),
        ({"generator": [torch.Generator()] * 2}, ConfigError, "expected 1, found 2"),
        ({"prompt_embeds": torch.zeros(1, 5, 16)}, ConfigError, r"\(prompts, 12, 16\), found"),
        ({"negative_prompt_embeds": torch.zeros(0, 12, 16)}, ConfigError, r"found \(0, 12, 16\)"),
        (
            {"width": 896000000, "height": 896000000},
            WuerstchenError,
            "memory for pictures of 896000000 x .*, 1 at once",
        ),
    ],
)
def test_arguments_that_cannot_work_are_one_sentence(pipeline, arguments, error, words):
    with pytest.raises(error, match=words):
        pipeline(**{"prompt": PROMPT, **arguments})


def test_a_long_prompt_warns_with_the_part_that_is_cut_off(pipeline):
    with pytest.warns(PromptWarning, match="'a yellow one'") as caught:
        pixels(pipeline, "a red apple a red apple a red apple a a yellow one")
    assert caught[0].filename.endswith("test_pipeline.py"), "the warning names the caller's line"


def test_a_prompt_that_fits_does_not_warn(pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(pipeline, "a red apple a red apple a")


@pytest.mark.parametrize(
    ("part", "stage"), [("stage_c", "Stage C"), ("stage_b", "Stage B"), ("stage_a", "Stage A")]
)
def test_numbers_that_are_not_finite_name_the_stage(part, stage):
    broken = small_pipeline()
    with torch.no_grad():
        list(getattr(broken, part).parameters())[-1].fill_(float("nan"))
    with pytest.raises(WuerstchenError, match=f"finite numbers from {stage}"):
        broken(PROMPT, seed=3)


# Callbacks


def test_callbacks_see_every_step_of_their_stage_with_its_time(pipeline):
    prior, decoder = [], []
    with_callbacks = pixels(
        pipeline,
        prior_callback_on_step_end=lambda pipe, step, t, tensors: prior.append((step, t)),
        callback_on_step_end=lambda pipe, step, t, tensors: decoder.append((step, t)),
    )
    assert [step for step, _ in prior] == list(range(STEPS_C))
    assert [t for _, t in prior] == pytest.approx([1 - k / STEPS_C for k in range(STEPS_C)])
    assert [t for _, t in decoder] == pytest.approx([1 - k / STEPS_B for k in range(STEPS_B)])
    assert torch.equal(with_callbacks, pixels(pipeline))


def test_a_callback_may_replace_the_latents(pipeline):
    def end_in_zeros(
        pipe: Pipeline, step: int, t: float, tensors: dict[str, Tensor]
    ) -> Mapping[str, Tensor]:
        return {"latents": torch.zeros_like(tensors["latents"])} if step == STEPS_B - 1 else tensors

    images = pixels(pipeline, callback_on_step_end=end_in_zeros)
    with torch.inference_mode():
        assert torch.equal(images, pipeline.stage_a.decode(torch.zeros(1, 4, 32, 32)))


def test_latents_replaced_midway_are_what_the_next_step_starts_from(pipeline):
    seen = []

    def keep(pipe: Pipeline, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"].clone())
        return {"latents": seen[0]} if step == 1 else {}

    changed = pixels(pipeline, prior_callback_on_step_end=keep)
    assert difference(changed, pixels(pipeline)) > 1e-3


def test_a_callback_may_replace_the_text_and_the_semantics(pipeline):
    other = pipeline.encode(pipeline.text_c, ["a green hat", ""])
    images = pixels(
        pipeline,
        prior_callback_on_step_end=lambda pipe, step, t, tensors: {
            "text_encoder_hidden_states": other
        },
    )
    assert difference(images, pixels(pipeline)) > 1e-4
    images = pixels(
        pipeline,
        callback_on_step_end=lambda pipe, step, t, tensors: {
            "image_embeddings": torch.zeros_like(tensors["image_embeddings"])
        },
        callback_on_step_end_tensor_inputs=["image_embeddings"],
    )
    assert difference(images, pixels(pipeline)) > 1e-4


def test_a_callback_cannot_ask_for_a_tensor_that_is_not_there(pipeline):
    with pytest.raises(ConfigError, match=r"latents, text_encoder_hidden_states.*found 'effnet'"):
        pipeline(
            PROMPT,
            callback_on_step_end=lambda *_: {},
            callback_on_step_end_tensor_inputs=["effnet"],
        )


def test_what_a_callback_asks_for_is_checked_before_any_work(pipeline):
    done = []
    for stage, word in (("prior_", "image_embeddings"), ("", "effnet")):
        asked = {
            f"{stage}callback_on_step_end": lambda *_: {},
            f"{stage}callback_on_step_end_tensor_inputs": [word],
        }
        with pytest.raises(ConfigError, match=f"can be given latents.*found '{word}'"):
            pipeline(PROMPT, on_step=lambda *step: done.append(step), **asked)
    assert done == []


def test_a_callback_may_ask_for_every_tensor_that_conditions_its_stage(pipeline):
    text = ["latents", "text_encoder_hidden_states", "negative_prompt_embeds"]
    pixels(
        pipeline,
        prior_guidance_scale=2.0,
        decoder_guidance_scale=2.0,
        prior_callback_on_step_end=lambda *_: {},
        prior_callback_on_step_end_tensor_inputs=text,
        callback_on_step_end=lambda *_: {},
        callback_on_step_end_tensor_inputs=[*text, "image_embeddings"],
    )


def test_an_error_in_a_callback_stops_the_run(pipeline):
    class Cancelled(Exception):
        pass

    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "Stage B":
            raise Cancelled

    with pytest.raises(Cancelled):
        pixels(pipeline, on_step=cancel)


# Folders


def test_a_saved_pipeline_draws_the_same_pictures(pipeline, folder):
    again = Pipeline.from_pretrained(folder)
    assert torch.equal(pixels(again), pixels(Pipeline.from_pretrained(folder)))
    # Weights that are mapped lie elsewhere in memory, so products may be rounded another way.
    assert difference(pixels(again), pixels(pipeline)) < 1e-5
    assert again.info == pipeline.info


def test_a_folder_without_wuerstchen_json_has_the_published_size_and_its_own_name(folder, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run(["cp", "-r", folder, bare], check=True)
    (bare / "wuerstchen.json").unlink()
    opened = Pipeline.from_pretrained(bare)
    assert opened.default_size == 1024 and opened.info.name == "bare"
    assert opened.info.defaults.num_inference_steps == 12


def test_torch_dtype_is_the_number_format_of_all_networks(folder, pipeline):
    half = Pipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert difference(pixels(half).float(), pixels(pipeline)) < 0.15


@pytest.mark.parametrize("name", ["nothing", "./models/none", "/none/of/this", "a b/c"])
def test_a_model_that_is_not_there_is_one_sentence_without_the_network(name):
    with pytest.raises(ModelFolderError, match="found no folder at"):
        Pipeline.from_pretrained(name)


def test_a_hub_id_that_is_not_cached_is_one_sentence(tmp_path):
    words = "found no folder 'owner/name' here, .* in the local cache of the hub"
    with pytest.raises(ModelFolderError, match=words) as caught:
        Pipeline.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_slip_in_a_path_never_asks_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ModelFolderError, match="found no 'nope' in the folder models"):
        Pipeline.from_pretrained("models/nope")


def test_a_hub_id_that_is_cached_opens_without_the_network(folder, tmp_path, pipeline):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", folder, snapshot], check=True)
    (snapshot / "wuerstchen.json").unlink()
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    opened = Pipeline.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert opened.info.name == "owner/name"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"size": "big"}', "size cannot be used"),
        ('{"size": 100}', "size cannot be used.*multiple of 128.*100"),
        ('{"size": true}', "size cannot be used"),
        ('{"sise": 1}', "sise cannot"),
        ("{", "the file"),
        ('{"defaults": {"decoder_timesteps": [1]}}', "defaults.decoder_timesteps cannot be used"),
        ('{"defaults": {"decoder_timesteps": [0, 1]}}', "defaults.decoder_timesteps cannot"),
        ('{"defaults": {"decoder_timesteps": [2, 0]}}', "defaults.decoder_timesteps cannot"),
        ('{"defaults": {"decoder_guidance_scale": NaN}}', "defaults.decoder_guidance_scale cannot"),
    ],
)
def test_a_wrong_wuerstchen_json_is_one_sentence(folder, tmp_path, text, words):
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", folder, bad], check=True)
    (bad / "wuerstchen.json").write_text(text)
    with pytest.raises(ModelFolderError, match=words) as caught:
        Pipeline.from_pretrained(bad)
    assert str(bad / "wuerstchen.json") in str(caught.value), "the sentence says where"
    assert "\n" not in str(caught.value)


def test_a_lacking_part_is_one_sentence(folder, tmp_path):
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", folder, bad], check=True)
    subprocess.run(["rm", "-r", bad / "prior_prior"], check=True)
    with pytest.raises(ModelFolderError, match="prior_prior"):
        Pipeline.from_pretrained(bad)


def test_parts_of_different_models_do_not_go_together(pipeline):
    with pytest.raises(ModelFolderError, match="must be equal, found 24 and 16"):
        Pipeline(
            pipeline.stage_a, pipeline.stage_b, pipeline.stage_c, pipeline.text_b, pipeline.text_b
        )


def test_a_folder_that_cannot_be_made_is_a_save_error(pipeline, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError, match="could not be written"):
        pipeline.save_pretrained(tmp_path / "file" / "model")


# diffusers


@pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation
@pytest.mark.parametrize(
    ("scale", "decoder_scale", "negative", "size"),
    [(4.0, 0.0, None, (128, 128)), (1.0, 2.5, "two birds", (256, 128))],
)
def test_diffusers_draws_the_same_picture_from_the_same_noise(
    pipeline, folder, scale, decoder_scale, negative, size
):
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    theirs = WuerstchenCombinedPipeline.from_pretrained(folder)
    theirs.prior_pipe.set_progress_bar_config(disable=True)
    theirs.decoder_pipe.set_progress_bar_config(disable=True)
    arguments = {
        "negative_prompt": negative,
        "height": size[0],
        "width": size[1],
        "prior_num_inference_steps": 8,
        "num_inference_steps": 5,
        "prior_guidance_scale": scale,
        "decoder_guidance_scale": decoder_scale,
        "output_type": "pt",
    }
    generators = [torch.Generator().manual_seed(3)]
    expected = theirs(PROMPT, generator=generators, **arguments).images
    found = pipeline(PROMPT, seed=3, **arguments).images
    assert found.std() > 0.1, "an empty picture proves nothing"
    assert difference(found, expected) < 1e-4

    start = torch.randn(1, CHANNELS, *(side // 128 * 3 for side in size))
    generators = [torch.Generator().manual_seed(3)]
    expected = theirs(PROMPT, generator=generators, latents=start, **arguments).images
    found = pipeline(PROMPT, seed=3, latents=start, **arguments).images
    assert difference(found, expected) < 1e-4


# The package


def test_importing_the_package_does_not_import_torch():
    code = "import sys, wuerstchen; print('torch' in sys.modules, wuerstchen.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False ['Pipeline', '__version__']\n"


def test_the_package_offers_the_pipeline_and_nothing_unknown():
    assert wuerstchen.Pipeline is Pipeline
    assert "Pipeline" in dir(wuerstchen)
    with pytest.raises(AttributeError, match="Pipelin'"):
        _ = wuerstchen.Pipelin  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"guidance_scale": float("nan")}, "guidance of the prior must be a finite number"),
        ({"guidance_scale": float("inf")}, "guidance of the prior must be a finite number"),
        ({"decoder_guidance_scale": float("nan")}, "guidance of the decoder must be"),
        ({"latents": torch.full((1, CHANNELS, 3, 3), float("nan"))}, "latents must hold finite"),
        (
            {"prompt_embeds": torch.full((1, 12, 16), float("inf"))},
            "prompt_embeds must hold finite",
        ),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"negative_prompt": [3]}, "A prompt must be text, found int"),
        ({"prompt": "a\udcffb"}, "must be UTF-8 text"),
        ({"negative_prompt": "a\udcffb"}, "must be UTF-8 text"),
    ],
)
def test_values_that_mean_nothing_are_refused(pipeline, changes, says):
    with pytest.raises(ConfigError, match=says):
        pipeline(**{"prompt": "a red heart", **changes})


def test_a_long_negative_prompt_is_named_too(pipeline):
    long = "blurred " * 60
    with pytest.warns(PromptWarning, match=r"The negative prompt 'blurred .*left out"):
        pipeline(
            "a red heart",
            negative_prompt=long,
            seed=1,
            prior_num_inference_steps=1,
            num_inference_steps=1,
        )
