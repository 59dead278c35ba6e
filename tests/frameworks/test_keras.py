"""Keras chooses its backend when it is first imported, so each backend has a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "keras_cases"


@pytest.mark.slow
@pytest.mark.parametrize("cases", sorted(path.name for path in CASES.glob("*_cases.py")))
@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_on_each_backend(backend: str, cases: str) -> None:
    if importlib.util.find_spec("keras") is None or importlib.util.find_spec(backend) is None:
        pytest.skip(f"keras with {backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES / cases)]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"[-8000:]
