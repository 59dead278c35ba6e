"""Nothing of a framework is imported before it is asked for, and one that is missing is named with its install line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import seewhy
from seewhy.frameworks import FRAMEWORKS

PACKAGES = {"paddle", "onnx", "onnxruntime", "keras", "jax", "tensorflow"}


def test_nothing_of_a_framework_is_imported_for_a_model_of_torch() -> None:
    code = (
        "import sys, torch, seewhy\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
        "seewhy.explain(model, torch.rand(3, 16, 16))\n"
        "try:\n    seewhy.explain(object(), torch.rand(3, 16, 16))\nexcept seewhy.ModelError:\n    pass\n"
        f"print(sorted({sorted(PACKAGES)!r} & sys.modules.keys()))"
    ).replace(f"{sorted(PACKAGES)!r} &", f"set({sorted(PACKAGES)!r}) &")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name, each in FRAMEWORKS.items() if each.extra])
def test_a_missing_framework_is_named_with_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    framework = FRAMEWORKS[name]
    monkeypatch.setitem(sys.modules, framework.package, None)
    with pytest.raises(seewhy.ModelError, match=rf"pip install 'seewhy\[{framework.extra}\]'"):
        framework.ready()


def test_a_stranger_is_told_what_a_model_may_be() -> None:
    with pytest.raises(seewhy.ModelError, match=r"A dict is not a model.*PaddlePaddle, ONNX, Keras"):
        seewhy.explain({}, torch.rand(3, 8, 8))
    assert isinstance(seewhy.Explainer(nn.Flatten()).model.module, nn.Flatten)
