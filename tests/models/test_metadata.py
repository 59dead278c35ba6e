"""What a module that the user built says about itself."""

import pytest
import timm
import torch
from torch import nn

from seewhy.images import Preprocess
from seewhy.models import ASSUMED, Labels, adopt


class Wrapped(nn.Module):
    """Has one child, as DataParallel, torch.compile and many a LightningModule do."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, images):
        return self.inner(images)


WRAPPERS = {
    "bare": lambda module: module,
    "wrapped": Wrapped,
    "twice": lambda module: Wrapped(Wrapped(module)),
    "sequential": nn.Sequential,
    "data parallel": nn.DataParallel,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_timm_module_says_its_own_preprocessing_and_labels(wrap):
    module = timm.create_model("mobilevitv2_050", pretrained=False)  # 0..1 without mean and std, crop 0.888
    given = wrap(module)
    adopted = adopt(given)
    assert adopted.module is given
    assert adopted.preprocess.mean == (0.0, 0.0, 0.0)
    assert adopted.preprocess.std == (1.0, 1.0, 1.0)
    assert adopted.preprocess.resize == (288, 288)
    assert adopted.labels.find("tench") == 0
    assert adopted.notes == ()


def test_a_compiled_module_is_seen_through():
    adopted = adopt(torch.compile(timm.create_model("mobilevitv2_050", pretrained=False)))
    assert adopted.preprocess.resize == (288, 288)


@pytest.mark.parametrize(
    ("tag", "classes", "named"),
    [
        ("a1_in1k", 1000, True),
        ("fb_in22k_ft_in1k", 1000, True),
        ("openai", 1000, True),
        (None, 1000, True),
        ("in12k", 1000, False),
        ("in12k", 11821, False),
        ("a1_in1k", 10, False),
        ("a1_in1k", 0, False),
    ],
)
def test_imagenets_names_are_given_only_to_a_model_of_imagenet(tag, classes, named):
    module = timm.create_model("resnet10t", pretrained=False, num_classes=classes)
    module.pretrained_cfg = {**module.pretrained_cfg, "tag": tag}
    assert (adopt(module).labels is not None) == named


def test_a_timm_module_for_grey_pictures_gets_grey_pictures():
    module = timm.create_model("resnet10t", pretrained=False, in_chans=1)
    preprocess = adopt(module).preprocess
    assert preprocess.channels == 1
    assert preprocess.mean == pytest.approx((0.449,))
    assert preprocess.std == pytest.approx((0.226,))


def test_a_timm_module_built_for_another_size_gets_that_size():
    module = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=(96, 160))
    assert adopt(module).preprocess.size == (96, 160)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_hugging_face_module_says_its_labels_and_that_the_rest_is_assumed(wrap, tiny_vit):
    adopted = adopt(wrap(tiny_vit()))
    assert adopted.labels == Labels(("cat", "dog", "owl", "newt"))
    assert adopted.notes == (ASSUMED,)


@pytest.mark.parametrize(
    "names",
    [{0: "LABEL_0", 1: "LABEL_1"}, {0: "cat", 5: "owl"}, {}],
    ids=["placeholders", "holes", "none"],
)
def test_names_that_say_nothing_or_leave_out_a_class_are_not_taken(names, tiny_vit):
    module = tiny_vit()
    module.config.id2label = names
    assert adopt(module).labels is None


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_plain_module_gets_the_usual_preprocessing_and_says_so(wrap):
    given = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    adopted = adopt(given)
    assert adopted.module is given
    assert adopted.preprocess == Preprocess()
    assert adopted.labels is None
    assert adopted.notes == (ASSUMED,)


def test_a_backbone_beside_other_parts_does_not_speak_for_the_whole():
    both = nn.ModuleDict({"one": timm.create_model("resnet10t", pretrained=False), "two": nn.Linear(2, 2)})
    assert adopt(both).notes == (ASSUMED,)


def test_a_model_is_called_by_its_class_unless_it_has_a_name():
    module = nn.Linear(2, 2)
    assert adopt(module).name == "Linear"
    assert adopt(module, "mine").name == "mine"


def test_a_changed_copy_leaves_the_first_as_it_was():
    first = adopt(nn.Linear(2, 2))
    changed = first.with_(labels=Labels(("a", "b")))
    assert (first.labels, changed.labels.find("b")) == (None, 1)
    assert changed.module is first.module
