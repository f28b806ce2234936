"""The public names of `import wuerstchen`."""

import subprocess
import sys

import pytest

import wuerstchen
from wuerstchen.inference.pipeline import Pipeline


def test_importing_the_package_does_not_import_torch():
    code = "import sys, wuerstchen; print('torch' in sys.modules, wuerstchen.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False ['Pipeline', '__version__']\n"


def test_the_package_has_the_pipeline_and_nothing_unknown():
    assert wuerstchen.Pipeline is Pipeline
    assert "Pipeline" in dir(wuerstchen)
    with pytest.raises(AttributeError, match="Pipelin'"):
        _ = wuerstchen.Pipelin  # type: ignore[attr-defined]
