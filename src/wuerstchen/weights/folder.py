"""What makes the parts of a model folder one model for diffusers."""

import os
from pathlib import Path

from wuerstchen.errors import SaveError
from wuerstchen.weights.files import read_json, replacing, write_json
from wuerstchen.weights.layout import CONFIG, PLACES, Part, need_part
from wuerstchen.weights.names import (
    DIFFUSERS_VERSION,
    OWN_STAGE_C,
    STAGE_A,
    STAGE_B,
    STAGE_C,
    Names,
)

SCHEDULER = "DDPMWuerstchenScheduler"
INDEX = "model_index.json"
# The public name "diffusers" does not lead to these classes since they are deprecated: diffusers
# cannot even open what it saves under that name. It does find them by the module they live in.
MODULES = {
    STAGE_A.class_name: "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model",
    STAGE_B.class_name: "diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext",
    STAGE_C.class_name: "diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior",
    OWN_STAGE_C: "wuerstchen.models.stage_c",  # diffusers says that it does not know it
}
PARTS: tuple[Part, ...] = ("stage_a", "stage_b", "stage_c", "text_b", "text_c")
"""What generating needs; the compressor only serves training and images as input."""


def finish_folder(folder: Path) -> None:
    """Write both schedulers and model_index.json, so that diffusers opens the folder.

    Raises ModelFolderError where a part is missing.
    """
    for part in PARTS:
        need_part(folder, part)
    schedulers = (folder / "scheduler", folder / "prior_scheduler")
    with replacing(*schedulers) as asides:
        for aside in asides:
            write_json(
                aside / "scheduler_config.json",
                {
                    "_class_name": SCHEDULER,
                    "_diffusers_version": DIFFUSERS_VERSION,
                    "scaler": 1.0,
                    "s": 0.008,
                },
            )
    _write_index(folder)


def _write_index(folder: Path) -> None:
    classes: dict[str, tuple[str, str]] = {
        "scheduler": ("diffusers", SCHEDULER),
        "prior_scheduler": ("diffusers", SCHEDULER),
    }
    for place in (PLACES["text_b"], PLACES["text_c"]):
        classes[place.folder] = ("transformers", "CLIPTextModel")
        classes[place.tokenizer] = ("transformers", "CLIPTokenizer")
    networks: tuple[tuple[Part, Names], ...] = (
        ("stage_a", STAGE_A),
        ("stage_b", STAGE_B),
        ("stage_c", STAGE_C),
    )
    for part, names in networks:
        name = str(read_json(folder / PLACES[part].folder / CONFIG).get("_class_name"))
        name = name if name in MODULES else names.class_name
        classes[PLACES[part].folder] = (MODULES[name], name)
    aside = folder / f".{INDEX}.new"
    try:
        write_json(
            aside,
            {
                "_class_name": "WuerstchenCombinedPipeline",
                "_diffusers_version": DIFFUSERS_VERSION,
                **classes,
            },
        )
        os.replace(aside, folder / INDEX)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise SaveError(
            f"{folder / INDEX} could not be written ({error.strerror}); "
            "what was there before is untouched."
        ) from error
