"""Keys of configs from outside: each is used, refused if it asks for something else, or named.

Networks read their own config.json (`names`, `text`). Here is the rest: schedulers,
model_index.json, and keys of configs that no reader looks at.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformers import CLIPTextConfig

from wuerstchen.diffusion.schedule import OFFSET
from wuerstchen.display import printable
from wuerstchen.errors import ModelFolderError, UnusedWarning
from wuerstchen.geometry import LATENT_STRIDE, SEMANTICS_SCALE, SEMANTICS_SHIFT, SEMANTICS_STRIDE
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.files import read_json
from wuerstchen.weights.folder import INDEX, SCHEDULER, SCHEDULERS
from wuerstchen.weights.layout import PLACES
from wuerstchen.weights.names import NAMES

SCHEDULE: Mapping[str, object] = {"scaler": 1.0, "s": OFFSET, "prediction_type": "epsilon"}
"""Keys of a scheduler with the only values that sampling implements."""

SPACES: Mapping[str, object] = {
    "latent_mean": SEMANTICS_SCALE,
    "latent_std": SEMANTICS_SHIFT,
    "resolution_multiple": SEMANTICS_STRIDE,
    "latent_dim_scale": SEMANTICS_STRIDE / LATENT_STRIDE,
}
"""The same of the pipelines in model_index.json, where some are rounded to two digits."""

ROUNDED = 0.005

PARTS = {
    *SCHEDULERS,
    *("prior", "text_encoder", "tokenizer"),
    *(folder for place in PLACES.values() for folder in (place.folder, place.tokenizer)),
}
"""Components of a model_index.json that are read."""

HEADINGS = frozenset(
    ("_class_name", "_diffusers_version", "_name_or_path", "_commit_hash", "_module", "_library")
)
"""Keys that describe the file, of any config of diffusers."""

_GENERAL = """
_attn_implementation_autoset _commit_hash _name_or_path add_cross_attention architectures
attn_implementation bad_words_ids begin_suppress_tokens chunk_size_feed_forward
cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dropout dtype
early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label is_composition is_decoder
is_encoder_decoder label2id length_penalty logit_scale_init_value max_length min_length model_type
no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
output_hidden_states output_scores prefix problem_type projection_dim remove_invalid_values
repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings
tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16
use_cache
"""
GENERAL = frozenset(_GENERAL.split())
"""Keys of any model of any version of transformers, which do not change an encoded text."""

REFUSED_OF_TEXT = ("quantization_config", "pruned_heads", "add_cross_attention", "is_decoder")
"""Keys that change the network where they are set."""


def check_keys_of_configs(components: Iterable[ComponentFiles]) -> None:
    """Check what the configs of these components, and of the folders that they are in, say.

    Raises ModelFolderError for a noise schedule or a scale other than ours, and for changed text
    encoders; warns of keys that are not used.
    """
    found = [files for files in components if files.missing() is None]
    configs = [files.config for files in found if files.config is not None]
    for folder in dict.fromkeys(path.parents[1] for path in configs if path.parent.name in PARTS):
        _check_pipeline(folder)
    _check_components(found)


def _check_pipeline(folder: Path) -> None:
    """Check schedulers and model_index.json."""
    for name in SCHEDULERS:
        if (path := folder / name / "scheduler_config.json").is_file():
            _check_scheduler(path)
    if (path := folder / INDEX).is_file():
        values = read_json(path)
        _check_fixed(path, values, {**SPACES, **{f"prior_{key}": v for key, v in SPACES.items()}})
        read = {*PARTS, *SPACES, *(f"prior_{key}" for key in SPACES), *HEADINGS}
        _name_unused(path, values, read)


def _check_components(components: Iterable[ComponentFiles]) -> None:
    """Check the keys of config.json that the networks do not read."""
    for files in components:
        values, path = files.config_values(), files.config or files.weights
        if values is None:
            continue
        if files.component in ("text_b", "text_c"):
            nested = values.get("text_config")
            section = nested if isinstance(nested, dict) else values
            for key in REFUSED_OF_TEXT:
                if section.get(key):
                    raise ModelFolderError(
                        f"{path}: {key} is {printable(section[key], 80)}, but only text encoders "
                        "without it can be opened."
                    )
            _name_unused(path, section, {*CLIPTextConfig().to_dict(), *GENERAL, *HEADINGS})
        elif values.get("_class_name") == NAMES[files.component].class_name:
            private = {key: value for key, value in values.items() if key.startswith("_")}
            _name_unused(path, private, HEADINGS | {"_use_default_values"})
        elif files.component == "compressor":  # its sizes are those of its shapes
            _name_unused(path, values, HEADINGS | {"c_latent", "c_cond", "effnet"})


def _check_scheduler(path: Path) -> None:
    values = read_json(path)
    _check_fixed(path, values, SCHEDULE)
    if (found := values.get("_class_name", SCHEDULER)) != SCHEDULER:
        _warn(path, f"a {printable(found, 80)} is not used; images are sampled as by {SCHEDULER}")
    else:
        _name_unused(path, values, {*SCHEDULE, *HEADINGS})


def _check_fixed(path: Path, values: Mapping[str, object], fixed: Mapping[str, object]) -> None:
    for key, expected in fixed.items():
        if (found := values.get(key)) is None or found == expected:
            continue
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if number and isinstance(expected, float):
            tolerance = ROUNDED if key.endswith(tuple(SPACES)) else 1e-9
            if math.isclose(float(found), expected, abs_tol=tolerance):  # type: ignore[arg-type]
                continue
        shown = f"{expected:.6g}" if isinstance(expected, float) else repr(expected)
        raise ModelFolderError(
            f"{path}: {key} is {printable(repr(found), 80)}, but only {shown} is implemented; "
            "images of this model would be wrong."
        )


def _name_unused(path: Path, values: Mapping[str, object], read: Iterable[str]) -> None:
    """Warn of keys that are set and not read; of components without a class, nothing."""
    known = set(read)
    unused = [key for key, value in values.items() if key not in known and _says(value)]
    if unused:
        _warn(path, f"{printable(', '.join(sorted(unused)), 200)} unknown and not used")


def _says(value: object) -> bool:
    if isinstance(value, list):
        return any(each is not None for each in value)
    return value not in (None, False, "", 0) and value != {}


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what}.", UnusedWarning, stacklevel=4)
