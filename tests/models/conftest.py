"""Small models and a Hugging Face folder, made on the spot; nothing is downloaded."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Keep Hugging Face from the network, also where transformers is already imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def tiny_vit():
    """Return a random four-class ViT of Hugging Face's kind."""
    from transformers import ViTConfig, ViTForImageClassification

    def make(**changes):
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        names = {"id2label": dict(enumerate(["cat", "dog", "owl", "newt"]))}
        return ViTForImageClassification(
            ViTConfig(image_size=32, patch_size=16, **{**sizes, **names, **changes})
        ).eval()

    return make


@pytest.fixture
def vit_folder(tiny_vit, tmp_path):
    """Return a folder with a tiny ViT and an image processor that shows: 32 x 32, nearest, mean 0.3, std 0.7."""
    from transformers import ViTImageProcessor

    folder = tmp_path / "my-vit"
    module = tiny_vit()
    module.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "resample": 0, "image_mean": [0.3] * 3, "image_std": [0.7] * 3}
    ViTImageProcessor(**settings).save_pretrained(folder)
    return folder, module


class Trap:
    """Pickles to a call that leaves a file behind: the proof that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    """Return an object that makes a folder when it is unpickled, and that folder's path."""
    path = tmp_path / "code-ran"
    return Trap(path), path


@pytest.fixture
def same_weights():
    """Compare a module with a state dict, number for number."""

    def compare(module, state):
        found = module.state_dict()
        return set(found) == set(state) and all(torch.equal(found[name], state[name]) for name in state)

    return compare
