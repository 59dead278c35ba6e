import json
import sys

import numpy as np
import pytest
import timm
import torch
from skimage import data

from seewhy.errors import ModelError
from seewhy.images import Preprocess, read
from seewhy.models import ASSUMED, EMBEDDED, Labels, LoadedModel, find_names, load
from seewhy.models.hugging_face import from_processor

CATS = range(281, 286)  # ImageNet: tabby to Egyptian cat


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that the user stands in; modules written there leave no trace behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("mine"):
            del sys.modules[name]


def test_the_built_in_model_knows_a_cat_without_a_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was opened"))
    loaded = load()
    tensor, _ = loaded.preprocess(read(data.chelsea()))
    with torch.inference_mode():
        best = int(loaded.module.eval()(tensor[None]).argmax())
    assert best in CATS
    assert "cat" in loaded.labels.lines[best]
    assert loaded.name == EMBEDDED


def test_the_built_in_model_with_other_classes_keeps_its_body(same_weights):
    whole, other = load().module.state_dict(), load(num_classes=5).module.state_dict()
    assert other["classifier.weight"].shape[0] == 5
    body = [name for name in whole if not name.startswith("classifier")]
    assert len(body) == len(whole) - 2
    assert all(torch.equal(whole[name], other[name]) for name in body)


@pytest.mark.parametrize(
    ("name", "kind", "title"),
    [
        ("resnet18", "timm.models.resnet", "timm:resnet18"),
        ("timm:resnet18", "timm.models.resnet", "timm:resnet18"),
        ("timm:resnet18.a1_in1k", "timm.models.resnet", "timm:resnet18.a1_in1k"),
        ("resnet18.tv_in1k", "timm.models.resnet", "timm:resnet18.tv_in1k"),
        ("torchvision:resnet18", "torchvision.models.resnet", "torchvision:resnet18"),
        ("squeezenet1_1", "torchvision.models.squeezenet", "torchvision:squeezenet1_1"),
        ("torchvision:googlenet", "torchvision.models.googlenet", "torchvision:googlenet"),
        ("seewhy:efficientnet_lite0", "timm.models.efficientnet", EMBEDDED),
    ],
)
def test_a_name_leads_to_its_source(name, kind, title, monkeypatch):
    if "googlenet" in name:  # its random start takes ten seconds and is not what is asked here
        monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    loaded = load(name, pretrained=False)
    assert type(loaded.module).__module__ == kind
    assert loaded.name == title
    assert loaded.labels.find("tench") == 0
    assert loaded.notes == ()


def test_a_tag_of_timm_is_not_dropped_on_the_way_to_the_built_in_model():
    loaded = load("efficientnet_lite0.ra_in1k", pretrained=False)
    assert loaded.name == "timm:efficientnet_lite0.ra_in1k"


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "efficientnet_lite0"])
def test_another_number_of_classes_has_none_of_imagenets_names(name):
    loaded = load(name, pretrained=False, num_classes=7)
    assert loaded.labels is None
    assert loaded.module.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


UNKNOWN = {
    "resnt18": "No model is called 'resnt18'. Nearest: 'resnet18'",
    "timm:resnt18": "timm has no model 'resnt18'. Nearest: 'resnet18'",
    "torchvision:vgg_11": "torchvision has no model 'vgg_11'. Nearest: 'vgg11'",
    "seewhy:lite": "seewhy has no model 'lite'",
    "vit_b_16.tag": "No model is called 'vit_b_16.tag'",  # only timm has tags
    "": "No model is called ''",
    "x" * 5000: "No model is called",
    "weights/best/model.pth": "--model NAME --weights weights/best/model.pth",
    "x.pdparams": "Write model='paddle:NAME', weights='x.pdparams' (--model paddle:NAME --weights x.pdparams)",
    "mine.weights.h5": "--model NAME --weights mine.weights.h5",
    "my_model.py": "Write 'my_model:factory', where factory is the function or class in it that makes the model.",
    "./zoo/my_model.py": "Write 'zoo.my_model:factory', where",
    "/home/me/my_model.py": "Write 'my_model:factory' in the folder of this file, where",
    "my_model.py:make": "Write 'my_model:make'.",
}


@pytest.mark.parametrize(("name", "told"), UNKNOWN.items(), ids=[name[:20] for name in UNKNOWN])
def test_an_unknown_name_is_told_with_the_nearest(name, told):
    with pytest.raises(ModelError) as error:
        load(name)
    assert told in str(error.value)


def test_names_are_listed_by_pattern():
    assert ("timm", "resnet18") in find_names("resnet1")
    assert ("torchvision", "resnet18") in find_names("*net18")
    assert find_names("lite0") == [("seewhy", EMBEDDED), *[pair for pair in find_names("lite0") if pair[0] == "timm"]]
    assert find_names("resnet1?") == [("timm", "resnet18"), ("torchvision", "resnet18")]


def test_a_download_that_fails_says_what_to_do_instead(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        ModelError, match=r"no route to host.*weights=.*pretrained=False.*'efficientnet_lite0' is always"
    ):
        load("resnet18")


def test_a_hugging_face_id_that_is_not_on_this_machine_is_told():
    with pytest.raises(ModelError, match="'nobody/nothing' or its trained weights could not be had"):
        load("nobody/nothing")


def test_a_negative_number_of_classes_is_told():
    with pytest.raises(ModelError, match="num_classes=-1"):
        load("resnet18", num_classes=-1)


@pytest.mark.parametrize("spell", ["hf:{}", "{}"])
def test_a_hugging_face_folder_brings_weights_labels_and_preprocessing(spell, vit_folder, same_weights):
    folder, module = vit_folder
    loaded = load(spell.format(folder))
    assert same_weights(loaded.module, module.state_dict())
    assert loaded.labels == Labels(("cat", "dog", "owl", "newt"))
    assert loaded.notes == ()
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        loaded.preprocess(read(picture))[0].permute(1, 2, 0), (picture / 255 - 0.3) / 0.7, atol=1e-5
    )
    assert loaded.preprocess.interpolation == "nearest"  # 0 in the file, which is not "not said"


def test_a_torchvision_segmenter_by_name_keeps_the_pictures_proportions(monkeypatch):
    """Without a word to the network: the body's weights, too, are random."""
    import torch

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("it was fetched"))
    loaded = load("torchvision:lraspp_mobilenet_v3_large", pretrained=False)
    assert loaded.labels.name(8) == "cat"
    assert loaded.notes == ()
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    tensor, geometry = loaded.preprocess(read(picture))
    assert tensor.shape == (3, 520, 780)
    assert [axis.scale for axis in geometry.axes] == pytest.approx([13, 13], rel=1e-2)
    assert loaded.module.classifier.low_classifier.out_channels == 21


@pytest.mark.parametrize("kind", ["semantic", "universal"])
def test_a_hugging_face_folder_of_a_segmenter_is_loaded_as_one(kind, tmp_path, same_weights):
    """As a classifier it would get a random head."""
    import transformers as hf

    stages = ["stage1", "stage2", "stage3", "stage4"]
    narrow = dict.fromkeys(("hidden_dim", "feature_size", "mask_feature_size", "dim_feedforward"), 32)
    swin = hf.SwinConfig(image_size=64, embed_dim=16, depths=[1] * 4, num_heads=[1, 2, 4, 8], out_features=stages)
    config = {
        "semantic": lambda: hf.SegformerConfig(hidden_sizes=[8, 16, 32, 64], depths=[1] * 4, num_labels=4),
        "universal": lambda: hf.Mask2FormerConfig(
            backbone_config=swin, **narrow, encoder_layers=1, decoder_layers=2, num_queries=5, num_labels=4
        ),
    }[kind]()
    config.id2label = {0: "road", 1: "sky", 2: "tree", 3: "car"}
    auto = {"semantic": hf.AutoModelForSemanticSegmentation, "universal": hf.AutoModelForUniversalSegmentation}[kind]
    module = auto.from_config(config)
    module.save_pretrained(tmp_path)
    loaded = load(f"hf:{tmp_path}")
    assert type(loaded.module) is type(module)
    assert same_weights(loaded.module, module.state_dict())
    assert loaded.labels == Labels(("road", "sky", "tree", "car"))


def test_a_hugging_face_folder_can_be_built_with_random_weights_and_other_classes(vit_folder, same_weights):
    folder, module = vit_folder
    loaded = load(f"hf:{folder}", pretrained=False, num_classes=6)
    assert loaded.module.classifier.out_features == 6
    assert loaded.labels is None
    name = "vit.layernorm.weight"
    assert loaded.module.state_dict()[name].shape == module.state_dict()[name].shape


def test_a_hugging_face_folder_without_preprocessing_says_that_it_was_assumed(vit_folder):
    folder, _ = vit_folder
    (folder / "preprocessor_config.json").unlink()
    loaded = load(str(folder))
    assert loaded.notes == (ASSUMED,)
    assert loaded.preprocess == Preprocess()


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 10**6, "width": 10**6}},
        {"size": {"height": -4, "width": 8}},
        {"image_mean": [0.1]},
        {"image_std": [0, 0, 0]},
        {"resample": 99},
        {"do_pad": True},
    ],
    ids=str,
)
def test_a_hostile_or_unknown_preprocessing_is_not_followed(settings, vit_folder):
    folder, _ = vit_folder
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    loaded = load(str(folder))
    given = settings == {"image_mean": [0.1]}  # one mean for all channels is sensible
    assert (loaded.preprocess.mean == (0.1,) * 3) if given else loaded.notes == (ASSUMED,)


def test_code_in_a_hugging_face_folder_is_not_run(vit_folder):
    folder, _ = vit_folder
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(folder / 'code-ran')!r})\nclass Config: pass\n")
    for file, key in (("config.json", "AutoConfig"), ("preprocessor_config.json", "AutoImageProcessor")):
        path = folder / file
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "model_type": "evil", "auto_map": {key: "evil.Config"}}))
    with pytest.raises(ModelError, match="could not be had"):
        load(str(folder))
    assert not (folder / "code-ran").exists()


def test_pickled_code_in_a_hugging_face_folder_is_not_run(vit_folder, trap):
    folder, _ = vit_folder
    bait, left_behind = trap
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": bait}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="could not be had"):
        load(str(folder))
    assert not left_behind.exists()


def test_a_folder_of_a_models_name_does_not_take_its_place(project, vit_folder):
    folder, _ = vit_folder
    folder.rename(project / "resnet18")
    assert load("resnet18", pretrained=False).name == "timm:resnet18"
    assert load("./resnet18").labels.find("newt") == 3


NARROW = {"size": {"shortest_edge": 80, "longest_edge": 133}}
PROCESSORS = {
    "squash": ("ViT", {"size": {"height": 48, "width": 80}}),
    "squash, lanczos, values at 0..2": ("ViT", {"resample": 1, "rescale_factor": 2 / 255}),
    "values at 0..255": ("ViT", {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3}),
    "not normalised": ("ViT", {"do_normalize": False}),
    "ConvNeXt": ("ConvNext", {"size": {"shortest_edge": 96}, "crop_pct": 0.875}),
    "large ConvNeXt": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "CLIP": ("CLIP", {}),
    "CLIP, odd": ("CLIP", {"size": {"shortest_edge": 70}, "crop_size": {"height": 65, "width": 65}}),
    "crop of a squash": ("Bit", {"size": {"height": 90, "width": 91}, "crop_size": {"height": 64, "width": 64}}),
    "MobileNet": ("MobileNetV1", {}),
    "SigLIP": ("Siglip", {}),
    "DeiT": ("DeiT", {}),
    "PoolFormer": ("PoolFormer", {}),
    "DETR": ("Detr", NARROW),
    "DETR, a longer side as long as it may be": ("Detr", {"size": {"shortest_edge": 80, "longest_edge": 101}}),
    "YOLOS": ("Yolos", NARROW),
    "Deformable DETR": ("DeformableDetr", NARROW),
    "Conditional DETR": ("ConditionalDetr", NARROW),
    "RT-DETR": ("RTDetr", {"size": {"height": 96, "width": 96}}),
}


@pytest.mark.parametrize(("family", "settings"), PROCESSORS.values(), ids=PROCESSORS)
def test_a_hugging_face_model_gets_what_its_image_processor_would_give_it(family, settings):
    import transformers

    processor = getattr(transformers, f"{family}ImageProcessorPil")(**settings)
    ours = from_processor(processor.to_dict())
    assert ours is not None
    for shape in ((301, 200), (97, 143), (64, 64), (183, 358), (80, 91)):
        pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
        theirs = processor(pixels, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours(read(pixels))[0].numpy(), theirs, atol=1e-5, rtol=1e-5)


def test_a_detectors_picture_keeps_its_edges_unless_it_is_padded_to_a_size():
    import transformers

    usual = transformers.DetrImageProcessorPil().to_dict()
    _, geometry = from_processor(usual)(read(np.zeros((50, 100, 3), np.uint8)))
    assert geometry.seen().all()
    assert from_processor({**usual, "pad_size": {"height": 900, "width": 1400}}) is None


@pytest.mark.parametrize("family", ["Levit", "EfficientNet", "MobileViT", "Perceiver", "MobileNetV2"])
def test_an_image_processor_that_we_may_not_match_is_not_guessed_at(family):
    import transformers

    processor = getattr(transformers, f"{family}ImageProcessorPil")()
    ours = from_processor(processor.to_dict())
    if ours is not None:
        pixels = np.random.default_rng(2).integers(0, 256, (301, 200, 3), dtype=np.uint8)
        theirs = processor(pixels, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours(read(pixels))[0].numpy(), theirs, atol=1e-5, rtol=1e-5)


FACTORIES = """
import torch
from seewhy.images import Preprocess
from seewhy.models import Labels, LoadedModel

def make(num_classes=4):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, num_classes))

ready = make(3)

def told():
    return LoadedModel(make(2), "mine", Preprocess(size=(2, 2)), Labels(("a", "b")))

def wrong():
    return "resnet18"

def broken():
    raise KeyError("no weights here")
"""


@pytest.mark.parametrize(("what", "given", "classes"), [("make", None, 4), ("make", 9, 9), ("ready", None, 3)])
def test_ones_own_factory_in_this_folder_is_called(what, given, classes, project):
    (project / "mine_factories.py").write_text(FACTORIES)
    loaded = load(f"mine_factories:{what}", num_classes=given)
    assert loaded.module[1].out_features == classes
    assert loaded.notes == (ASSUMED,)
    assert loaded.name == f"mine_factories:{what}"


def test_a_factory_in_a_package_may_say_all_itself(project):
    (project / "mine").mkdir()
    (project / "mine" / "models.py").write_text(FACTORIES)
    loaded = load("mine.models:told")
    assert isinstance(loaded, LoadedModel)
    assert (loaded.preprocess.size, loaded.labels.find("b"), loaded.notes) == ((2, 2), 1, ())


FAILING = {
    "mine_factories:wrong": "returned a str; it must return a torch.nn.Module",
    "mine_factories:broken": "raised KeyError: 'no weights here'",
    "mine_factories:mak": "has no 'mak'. Nearest: 'make'",
    "mine_factories:": "has no ''",
    "mine_typo:make": "'mine_typo' cannot be imported: SyntaxError",
    "mine_raises:make": "'mine_raises' cannot be imported: RuntimeError: boom",
    "mine_nowhere:make": "'mine_nowhere' cannot be imported",
    ".relative:make": "cannot be imported: TypeError",
    ":make": "cannot be imported: ValueError",
}


@pytest.mark.parametrize(("name", "told"), FAILING.items())
def test_a_factory_that_fails_is_told_as_the_users_own(name, told, project):
    (project / "mine_factories.py").write_text(FACTORIES)
    (project / "mine_typo.py").write_text("def make(:\n")
    (project / "mine_raises.py").write_text("raise RuntimeError('boom')\n")
    with pytest.raises(ModelError) as error:
        load(name)
    assert told in str(error.value)
    assert f"'{name}'" in str(error.value)


def test_a_factory_that_takes_no_number_of_classes_is_told(project):
    (project / "mine_factories.py").write_text(FACTORIES)
    with pytest.raises(ModelError, match="takes no num_classes, and 3 were asked for"):
        load("mine_factories:told", num_classes=3)
