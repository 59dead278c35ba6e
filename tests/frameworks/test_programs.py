"""TorchScript modules and exported programs: the maps of the module that they were made from, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from seewhy.evaluation.settings import differences, settings_of, unidentified
from seewhy.maps import find_method
from seewhy.models.given import as_loaded
from seewhy.plan import lacking
from small_models import SmallViT, make_small_net

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")

UNIT = {"mean": (0.0,), "std": (1.0,)}
FEW = {"samples": 3, "masks": 24, "steps": 4, "count": 6, "window": 8}
Form = Callable[[nn.Module, Tensor], Any]


def exported(module: nn.Module, images: Tensor) -> Any:
    return torch.export.export(module, (images,))


def dynamic(module: nn.Module, images: Tensor) -> Any:
    return torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


FORMS: dict[str, Form] = {
    "traced": lambda module, images: torch.jit.trace(module, images[:1]),
    "scripted": lambda module, _: torch.jit.script(module),
    "exported alone": lambda module, images: exported(module, images[:1]),
    "exported by two": lambda module, images: exported(module, images[:2]),
    "exported for any batch": dynamic,
    "graph module": lambda module, images: dynamic(module, images).module(),
}
SCRIPTS = ("traced", "scripted")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(4))


def few(name: str) -> dict[str, Any]:
    return {option: FEW[option] for option in find_method(name).options if option in FEW}


def possible(form: str) -> list[str]:
    shell = as_loaded(FORMS[form](make_small_net().eval(), torch.rand(3, 3, 24, 40))).module
    every = [entry for entry in seewhy.methods() if not lacking(shell, entry)]
    return [entry.name for entry in every if entry.name != "random"]


def assert_same_maps(module: nn.Module, program: Any, images: Tensor, name: str) -> None:
    how: dict[str, Any] = {"preprocess": UNIT, **few(name)}
    expected = seewhy.explain(module, images, 1, name, **how)
    found = seewhy.explain(program, images, 1, name, **how)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=2e-5 * np.abs(other.raw).max())
        assert one.score == pytest.approx(other.score, abs=1e-5)
        idle = isinstance(module.get_submodule(other.layers[0]), nn.Identity) if other.layers else False
        assert one.layers == other.layers or idle  # what does nothing leaves no operation


@pytest.mark.parametrize("form", FORMS)
def test_every_method_that_is_possible_gives_the_modules_own_maps(form: str, images: Tensor) -> None:
    module = make_small_net().double().eval()  # guided-ig's path turns at thresholds
    program = FORMS[form](module, images.double())
    names = possible(form)
    assert ("grad-cam" in names) == (form not in SCRIPTS)
    assert {"saliency", "integrated-gradients", "rise", "occlusion"} <= set(names)
    if form not in SCRIPTS:
        assert {"cam", "ablation-cam", "guided-backprop", "attn-lrp", "shapley-cam", "score-cam"} <= set(names)
    for name in names:
        assert_same_maps(module, program, images.double(), name)


@pytest.mark.parametrize("name", ["grad-cam", "ablation-cam", "saliency", "guided-backprop", "attn-lrp", "eigen-cam"])
def test_an_exported_transformer(name: str, images: Tensor) -> None:
    module = SmallViT().eval()
    assert_same_maps(module, exported(module, images[:1]), images, name)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"])
def test_exported_models_of_timm(name: str) -> None:
    size = {"img_size": 64, "depth": 2} if "vit" in name else {}
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=7, **size).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    program = exported(module, images[:1])
    for method in ("grad-cam", "layer-cam", "input-x-gradient", "attn-lrp"):
        assert_same_maps(module, program, images, method)
    own, expected = seewhy.layers(program, images[0]), seewhy.layers(module, images[0])
    grids = {row.name: (row.layout, row.stride, row.default) for row in own}
    common = [row for row in expected if row.name in grids]
    assert len(common) > len(expected) / 2
    assert [grids[row.name][:2] for row in common] == [(row.layout, row.stride) for row in common]


def test_layers_have_the_modules_names_and_kinds(images: Tensor) -> None:
    program = exported(make_small_net().eval(), images[:1])
    rows = {row.name: row.kind for row in seewhy.layers(program, images[0])}
    assert rows == {row.name: row.kind for row in seewhy.layers(make_small_net(), images[0])}
    why = seewhy.explain(program, images[0], layers="first")
    assert (why.layers, why.model) == (("first",), "SmallNet")


class Twice(nn.Module):
    """Runs both its layers twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.conv(self.act(self.conv(images)))).mean((2, 3))


@pytest.mark.parametrize(("layer", "own"), [("conv", "conv#2"), ("act", "act")])
def test_of_a_layer_that_runs_twice_the_last_run_is_shown(layer: str, own: str, images: Tensor) -> None:
    torch.manual_seed(0)
    module = Twice().eval()
    found = seewhy.explain(exported(module, images[:1]), images[0], 1, layers=layer)
    np.testing.assert_allclose(found.raw, seewhy.explain(module, images[0], 1, layers=own).raw, atol=1e-6)
    assert f"layer {layer} ran 2 times; the map is of the last" in found.notes


def test_the_size_of_the_input_is_read_off_the_program(chelsea: np.ndarray) -> None:
    module = make_small_net().eval()
    why = seewhy.explain(exported(module, torch.rand(1, 3, 48, 64)), chelsea)
    assert why.geometry.axes[0].input == 48
    assert why.geometry.axes[1].input == 64
    with pytest.raises(seewhy.RecordingError, match="Guard failed"):
        seewhy.explain(exported(module, torch.rand(1, 3, 48, 64)), torch.rand(3, 24, 24))


@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_given_back_as_it_was(form: str, images: Tensor) -> None:
    program = FORMS[form](make_small_net().eval(), images)
    module = program.module() if isinstance(program, torch.export.ExportedProgram) else program
    if form == "scripted":
        program.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    for name in ("rise", "saliency"):
        seewhy.explain(program, images, 1, name, **few(name))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert all(each.grad is None and each.requires_grad for each in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", SCRIPTS)
def test_a_script_says_what_it_cannot(form: str, images: Tensor) -> None:
    script = FORMS[form](make_small_net().eval(), images)
    for name in ("grad-cam", "ablation-cam", "guided-backprop", "attn-lrp", "fullgrad", "lrp"):
        with pytest.raises(seewhy.MethodError, match=rf"'{name}' cannot be had of this TorchScript module: .*Use"):
            seewhy.explain(script, images[0], method=name)
    with pytest.raises(seewhy.LayerError, match="Of this TorchScript module no layer can be seen"):
        seewhy.layers(script, images[0])
    why = seewhy.explain(script, images[0])
    assert why.method == "integrated-gradients"
    assert any("as none was named and a TorchScript module has no layers" in note for note in why.notes)


def test_a_script_in_training_mode_is_run_in_evaluation_mode(images: Tensor) -> None:
    module = make_small_net()
    expected = seewhy.explain(module.eval(), images, 1, "saliency")
    script = torch.jit.script(module)
    for one, other in zip(seewhy.explain(script.train(), images, 1, "saliency"), expected, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-6)


def test_one_image_through_batch_normalisation_before_tokens() -> None:
    """Torch's own backward is wrong here for one image on a CPU; the original module is run in a way round it."""
    module, image = SmallViT().eval(), torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    expected = seewhy.explain(module.double(), image.double(), 1, "saliency")
    for program in (torch.jit.trace(module.float(), image[None]), exported(module.float(), image[None])):
        found = seewhy.explain(program, image, 1, "saliency")
        np.testing.assert_allclose(found.raw, expected.raw, atol=1e-5 * np.abs(expected.raw).max() + 1e-6)


def test_an_exported_program_says_what_it_cannot(images: Tensor) -> None:
    program = exported(make_small_net().eval(), images[:1])
    for name in ("attention", "fullgrad", "lrp"):
        with pytest.raises(
            seewhy.MethodError, match=rf"'{name}' cannot be had of this exported program: it needs the mod"
        ):
            seewhy.explain(program, images[0], method=name)


def test_a_graph_of_modules_is_a_module_as_any(images: Tensor) -> None:
    module = make_small_net().eval()
    graph = torch.fx.symbolic_trace(module)
    found, expected = (
        seewhy.explain(graph, images[0], method="fullgrad"),
        seewhy.explain(module, images[0], method="fullgrad"),
    )
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)


@pytest.fixture
def files(tmp_path: Path, images: Tensor) -> dict[str, Path]:
    module = make_small_net().eval()
    torch.jit.trace(module, images[:1]).save(tmp_path / "traced.pt")
    torch.export.save(exported(module, images[:1]), tmp_path / "program.pt2")
    return {"torchscript": tmp_path / "traced.pt", "torch.export": tmp_path / "program.pt2"}


@pytest.mark.parametrize("prefix", ["torchscript", "torch.export"])
def test_files_are_read_only_where_the_caller_says_so(prefix: str, files: dict[str, Path], images: Tensor) -> None:
    path = files[prefix]
    with pytest.raises(seewhy.ModelError, match=rf"reading it can run that code: it was not opened.*'{prefix}:"):
        seewhy.load(str(path))
    expected = seewhy.explain(make_small_net().eval(), images[0], 1, "saliency")
    found = seewhy.explain(f"{prefix}:{path}", images[0], 1, "saliency")
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)
    with pytest.raises(seewhy.ModelError, match="There is no model file"):
        seewhy.load(f"{prefix}:{path}.nowhere")
    other = files["torch.export" if prefix == "torchscript" else "torchscript"]
    with pytest.raises(seewhy.ModelError, match=rf"cannot be read as '{prefix}:'"):
        seewhy.load(f"{prefix}:{other}")


def test_the_doctor_looks_at_an_exported_program_as_at_a_module() -> None:
    program = exported(make_small_net().eval(), torch.rand(1, 3, 48, 48))
    report = seewhy.doctor(program, torch.rand(3, 48, 48))
    assert report.check("layers").verdict == "ok"
    assert "'second'" in report.check("layers").found
    assert report.check("batch").verdict == "ok"
    assert not [row for row in report if row.verdict == "fails"], report


class Minus(nn.Module):
    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([image.mean((1, 2, 3)), (image - mask).mean((1, 2, 3))], 1)


def test_named_inputs_are_told_by_their_names() -> None:
    image, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    program = torch.export.export(Minus(), (), {"image": image, "mask": mask})
    shell = as_loaded(program).module
    expected = Minus()(image, mask)
    for given in ({"image": image, "mask": mask}, {"mask": mask, "image": image}):
        torch.testing.assert_close(shell(**given), expected)


@pytest.mark.parametrize("more", [{"pretrained": False}, {"num_classes": 7}])
@pytest.mark.parametrize("prefix", ["torchscript", "torch.export"])
def test_nothing_else_is_made_of_a_file_that_holds_a_model(
    prefix: str, more: dict[str, Any], files: dict[str, Path]
) -> None:
    with pytest.raises(seewhy.ModelError, match="has its own weights and classes in it"):
        seewhy.load(f"{prefix}:{files[prefix]}", **more)


def test_a_damaged_archive_is_told_by_whoever_reads_it(files: dict[str, Path]) -> None:
    content = bytearray(files["torchscript"].read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    damaged = files["torchscript"].with_name("damaged.keras")
    damaged.write_bytes(content)
    with pytest.raises(seewhy.ModelError, match=r"not a complete \.keras file"):
        seewhy.load(str(damaged))


@pytest.mark.parametrize("form", FORMS)
def test_results_are_gone_on_with_where_the_weights_are_the_same(form: str, images: Tensor) -> None:
    made = [settings_of(seewhy.Explainer(FORMS[form](make_small_net(seed).eval(), images))) for seed in (1, 1, 2)]
    assert not unidentified(made[0])
    assert differences(made[0], made[1]) == []
    assert differences(made[0], made[2]) == ["weights"]
