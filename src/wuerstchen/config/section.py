"""The base class of all config sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the config: immutable; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
