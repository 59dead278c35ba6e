"""The commands that the pages about other frameworks show, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [
    (page.stem, line.partition("#")[0].strip())
    for page in sorted((ROOT / "docs" / "frameworks").glob("*.md"))
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("seewhy ")
]
FUNCTION = """
import numpy as np


def predict(images):
    return np.stack([images.mean((1, 2, 3)), images[..., :100].mean((1, 2, 3))], 1)
"""


def paddle_files() -> None:
    paddle = pytest.importorskip("paddle")
    paddle.seed(0)
    paddle.save(paddle.vision.models.resnet18(num_classes=4).state_dict(), "crops.pdparams")
    factory = "import paddle\n\n\ndef model():\n    return paddle.vision.models.resnet18(num_classes=4)\n"
    Path("my_crops.py").write_text(factory)


def keras_files() -> None:
    pytest.importorskip("keras")
    code = (
        "import keras; m = keras.applications.MobileNetV2(weights=None); m.save_weights('mine.weights.h5');"
        "l = keras.layers; keras.Sequential([keras.Input((64, 64, 3)), l.Conv2D(4, 3, 2), l.GlobalAveragePooling2D(),"
        "l.Dense(4)]).save('model.keras')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=keras_on_torch(), check=True, timeout=300)


def onnx_files() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx_models import Cnn

    onnx.save(Cnn().build(), "model.onnx")


def function_files() -> None:
    Path("mine.py").write_text(FUNCTION)


FILES: dict[str, Callable[[], None]] = {
    "paddle": paddle_files,
    "keras": keras_files,
    "onnx": onnx_files,
    "function": function_files,
    "programs": lambda: None,
}


def keras_on_torch() -> dict[str, str]:
    return {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(sys.path)}


def test_every_page_shows_a_command() -> None:
    assert {"paddle", "keras", "onnx"} <= {page for page, _ in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_runs(
    page: str, command: str, tmp_path: Path, chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "photo.jpg"):
        Image.fromarray(chelsea).save(name)
    for name in ("stages.txt", "names.txt"):
        Path(name).write_text("sown\nsprout\nleaves\nripe\n")
    FILES[page]()
    downloads = "--model keras:" in command and "--weights" not in command
    words = shlex.split(f"{command} --random" if downloads else command)[1:]
    # A process of its own: Keras chooses its backend when it is first imported.
    ran = subprocess.run(
        [sys.executable, "-c", "from seewhy.cli import main; main()", *words],
        env=keras_on_torch(), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for written in re.findall(r"wrote (\S+)", ran.stdout):
        with Image.open(tmp_path / written) as picture:
            assert min(picture.size) > 200
    assert ("wrote" in ran.stdout) == (words[0] in ("explain", "compare"))
