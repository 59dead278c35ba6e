"""Methods that other libraries make: named where the library is missing, and imported only when they are asked for."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import pytest
from torch import Tensor
from typer.testing import CliRunner

import seewhy
from seewhy.cli.commands import app
from small_models import SmallNet


def test_the_table_of_methods_has_one_row_for_all_of_captum() -> None:
    [line] = [line for line in str(seewhy.methods()).splitlines() if line.startswith("captum:NAME")]
    assert "pip install 'seewhy[captum]'" in line
    assert "captum:NAME" in CliRunner().invoke(app, ["methods"]).output
    assert not [entry for entry in seewhy.methods() if entry.name.startswith("captum")]


@pytest.mark.parametrize(
    ("library", "method", "extra"), [("captum", "captum:DeepLift", "captum"), ("zennit", "lrp", "lrp")]
)
def test_without_its_library_a_methods_extra_is_named(
    library: str, method: str, extra: str, small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named '{library}'", name=library)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(seewhy.MethodError, match=rf"pip install 'seewhy\[{extra}\]'"):
        seewhy.explain(small_net, batch[0], 1, method)
    assert "captum:NAME" in str(seewhy.methods())


def test_nothing_of_captum_or_zennit_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, torch, seewhy\n"
        "str(seewhy.methods()), seewhy.explain\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'captum', 'zennit', 'sklearn'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
