"""Models that answer with a vector: similarity to images, vectors and several, by hand; pairs; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from typer.testing import CliRunner

import seewhy
from seewhy.cli.commands import app
from seewhy.errors import ImageError, ModelError, TargetError
from seewhy.recorder.outputs import read_scores
from seewhy.targets import Anchor, SimilarityTarget

pytestmark = pytest.mark.usefixtures("one_core")

TOKENS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


class Embedder(nn.Module):
    """Three convolutions and a mean: a vector of 7 an image."""

    def __init__(self, wrap: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(12, 7)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        vectors = self.head(self.body(images).mean((2, 3)))
        return {"image_embeds": vectors} if self.wrap else vectors


@pytest.fixture
def model() -> Embedder:
    torch.manual_seed(0)
    made = Embedder()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.4)
    return made.eval()


@pytest.fixture
def pictures() -> list[np.ndarray]:
    made = np.random.default_rng(0).integers(0, 255, (4, 40, 56, 3), np.uint8)
    return [np.asarray(Image.fromarray(each).resize((56, 40))) for each in made]


def vectors(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def test_the_score_is_the_cosine_with_the_other_images_vector(model: Embedder, batch: Tensor) -> None:
    one, other, third = vectors(model, batch)
    found = seewhy.explain(model, batch[:2], seewhy.similar_to(batch[2]))
    assert [why.score for why in found] == pytest.approx(
        [float(cosine_similarity(each, third, dim=0)) for each in (one, other)], abs=1e-6
    )
    assert found[0].prediction == ()
    assert found[0].target_index is None
    assert found[0].target == "similarity to tensor"


def test_grad_cam_is_that_of_the_cosine(model: Embedder, batch: Tensor) -> None:
    third = vectors(model, batch)[2]
    why = seewhy.explain(model, batch[0], seewhy.similar_to(batch[2]), layers="body.2", view="signed")
    activations = model.body[:3](batch[:1])
    activations.retain_grad()
    vector = model.head(activations.relu().mean((2, 3)))[0]
    [gradient] = torch.autograd.grad((vector @ third) / (vector.norm() * third.norm()), activations)
    expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].detach()
    assert why.raw == pytest.approx(expected.numpy(), abs=1e-6)
    assert np.ptp(why.raw) > 1e-3


def test_the_map_lies_where_the_shared_feature_is() -> None:
    """A vector of two numbers, redness and blueness: what makes a picture of both similar to a red one is its red half."""
    model = nn.Sequential(nn.Conv2d(3, 2, 4, 4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = model[0].weight[1, 2] = 1 / 16
    both, red, blue = torch.zeros(3, 3, 16, 16)
    both[0, :, :8] = both[2, :, 8:] = 1
    red[0] = blue[2] = 1
    towards_red = seewhy.explain(model, both, seewhy.similar_to(red), layers="1")
    assert towards_red.score == pytest.approx(0.5**0.5)
    assert (towards_red.raw[:, :2] > 0.01).all()
    assert (towards_red.raw[:, 2:] < -0.01).all()
    rather = seewhy.explain(model, both, seewhy.similar_to(blue, than=red), layers="1")
    assert rather.score == pytest.approx(0, abs=1e-6)
    assert (rather.raw[:, 2:] > 0.01).all()


class TestWhatMayBeCompared:
    def test_than(self, model: Embedder, batch: Tensor) -> None:
        one, other, third = vectors(model, batch)
        expected = cosine_similarity(one, other, dim=0) - cosine_similarity(one, third, dim=0)
        why = seewhy.explain(model, batch[0], seewhy.similar_to(batch[1], than=batch[2]))
        assert why.score == pytest.approx(float(expected), abs=1e-6)

    def test_dot_product(self, model: Embedder, batch: Tensor) -> None:
        one, other, _ = vectors(model, batch)
        why = seewhy.explain(model, batch[0], seewhy.similar_to(batch[1], measure="dot"))
        assert why.score == pytest.approx(float(one @ other), abs=1e-5)

    @pytest.mark.parametrize("form", [torch.as_tensor, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.double])
    def test_a_vector(self, model: Embedder, batch: Tensor, form) -> None:
        direction = torch.randn(7, generator=torch.Generator().manual_seed(5))
        why = seewhy.explain(model, batch[0], seewhy.similar_to(form(direction)))
        assert why.score == pytest.approx(
            float(cosine_similarity(vectors(model, batch)[0], direction, dim=0)), abs=1e-6
        )
        assert why.target == "similarity to a vector of 7"

    def test_several_images_are_their_mean_at_length_one(self, model: Embedder, batch: Tensor) -> None:
        one, other, third = vectors(model, batch)
        mean = (normalize(other, dim=0) + normalize(third, dim=0)) / 2
        for several in (batch[1:], [batch[1], batch[2]], [batch[1:2], batch[2:]]):
            why = seewhy.explain(model, batch[0], seewhy.similar_to(several))
            assert why.score == pytest.approx(float(cosine_similarity(one, mean, dim=0)), abs=1e-6)
            assert why.target == "similarity to 2 images"
        plain = seewhy.explain(model, batch[0], seewhy.similar_to(batch[1:], measure="dot"))
        assert plain.score == pytest.approx(float(one @ (other + third) / 2), abs=1e-5)

    def test_images_of_different_sizes(self, model: Embedder, batch: Tensor) -> None:
        small = batch[1, :, :16, :20]
        [one, other], [third] = vectors(model, batch[[0, 2]]), vectors(model, small[None])
        mean = (normalize(other, dim=0) + normalize(third, dim=0)) / 2
        why = seewhy.explain(model, batch[0], seewhy.similar_to([batch[2], small]))
        assert why.score == pytest.approx(float(cosine_similarity(one, mean, dim=0)), abs=1e-6)

    def test_files_pictures_and_arrays_are_prepared_alike(
        self, model: Embedder, pictures: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name, picture in zip(("a.png", "b.png", "b-vs-c.png"), pictures, strict=False):
            Image.fromarray(picture).save(name)
        ask = seewhy.Explainer(model, preprocess={"size": (32, 32), "resize": None})
        own = [vectors(model, ask.model.preprocess(seewhy.images.read(each))[0][None])[0] for each in pictures[:3]]
        expected = [float(cosine_similarity(own[0], other, dim=0)) for other in own[1:]]
        for what in (seewhy.similar_to("b.png"), "similar:b.png", "Similar: b.png",
                     seewhy.similar_to(Image.fromarray(pictures[1])), seewhy.similar_to(pictures[1])):  # fmt: skip
            assert ask("a.png", what).score == pytest.approx(expected[0], abs=1e-5)
        assert ask("a.png", "similar:b-vs-c.png").score == pytest.approx(expected[1], abs=1e-5)
        contrast = ask("a.png", 'similar:b.png-vs-"b-vs-c.png"')
        assert contrast.score == pytest.approx(expected[0] - expected[1], abs=1e-5)
        assert contrast.target == "similarity to b.png vs b-vs-c.png"

    def test_one_for_each_image(self, model: Embedder, batch: Tensor) -> None:
        one, other, third = vectors(model, batch)
        found = seewhy.explain(model, batch[:2], [seewhy.similar_to(batch[2]), seewhy.similar_to(one)])
        assert [why.score for why in found] == pytest.approx(
            [float(cosine_similarity(one, third, dim=0)), float(cosine_similarity(other, one, dim=0))], abs=1e-6
        )

    def test_beside_other_targets(self, model: Embedder, batch: Tensor) -> None:
        found = seewhy.compare(model, batch[0], targets=[seewhy.similar_to(batch[1]), lambda vector: vector[3], 3])
        assert found[1].score == pytest.approx(float(vectors(model, batch)[0, 3]), abs=1e-5)
        assert (found[1].raw == found[2].raw).all()
        assert found[0].prediction == ()


@pytest.mark.parametrize(
    "method", ["grad-cam", "rise", "score-cam", "occlusion", "integrated-gradients", "guided-backprop"]
)
def test_a_batch_within_a_budget_is_one_by_one(model: Embedder, batch: Tensor, method: str) -> None:
    ask = seewhy.Explainer(model, batch_size=2)
    target = seewhy.similar_to(batch[1], than=batch[2])
    for image, why in zip(batch, ask(batch, target, method, budget=30), strict=True):
        alone = ask(image, target, method, budget=30)
        assert why.raw == pytest.approx(alone.raw, abs=1e-5)
        assert np.ptp(why.raw) > 0


def test_rise_is_the_mean_of_its_masks_cosines(model: Embedder, batch: Tensor) -> None:
    """The perturbed images go through the whole model, the other image does not: its vector stays."""
    other = vectors(model, batch)[1]
    seen: list[Tensor] = []

    def cosine(vector: Tensor) -> Tensor:
        seen.append(vector)
        return (vector @ other) / (vector.norm() * other.norm())

    by_hand = seewhy.explain(model, batch[0], cosine, method="rise", budget=40)
    why = seewhy.explain(model, batch[0], seewhy.similar_to(batch[1]), method="rise", budget=40)
    assert why.raw == pytest.approx(by_hand.raw, abs=1e-5)
    assert len(seen) > 40


def test_identity_has_no_slope() -> None:
    """An image is as similar to itself as can be: nothing raises the cosine, and the map says that it is empty."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    image = torch.rand(3, 12, 12, dtype=torch.float64)
    why = seewhy.explain(model, image, seewhy.similar_to(image))
    assert why.score == pytest.approx(1, abs=1e-6)
    assert np.abs(why.raw).max() < 1e-5


def test_the_gradient_of_a_dead_vector_is_finite() -> None:
    target = SimilarityTarget(Anchor(torch.ones(3), "ones"))
    leaf = torch.zeros(3, requires_grad=True)
    target(leaf).backward()
    assert leaf.grad.isfinite().all()


class TestKinds:
    def test_a_vector_by_its_name_is_asked_nothing_by_default(self, batch: Tensor) -> None:
        with pytest.raises(TargetError, match=r"vector of 7 numbers.*no target was given.*similar_to"):
            seewhy.explain(Embedder(wrap=True), batch[0])

    def test_or_by_what_the_caller_says(self, batch: Tensor) -> None:
        returned = {"scores": torch.zeros(2, 5), "embedding": torch.ones(2, 3)}
        assert read_scores(returned, 2)[1] == "classes"
        assert read_scores(returned, 2, "embedding")[1] == "vector"
        assert read_scores({"aux": {"pooler_output": torch.zeros(2, 5)}}, 2, "aux.pooler_output")[1] == "vector"
        assert read_scores({"embedding": torch.zeros(2, 5, 3, 3)}, 2, "embedding")[1] == "places"

    @pytest.mark.parametrize("kind", ["Dinov2", "ViT", "ResNet", "ConvNext", "CLIPVision"])
    def test_bodies_of_hugging_face(self, kind: str) -> None:
        import transformers as hf

        torch.manual_seed(0)
        stages = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
        options = {**stages, "embedding_size": 8} if kind == "ResNet" else stages if kind == "ConvNext" else TOKENS
        config = getattr(hf, f"{kind}Config")(**options)
        ending = "ModelWithProjection" if kind == "CLIPVision" else "Model"
        model = getattr(hf, f"{kind}{ending}")(config).eval()
        images = torch.randn(2, 3, *((64, 64) if options is not TOKENS else (32, 32)))
        with torch.no_grad():
            returned = model(images)
            own = returned.image_embeds if kind == "CLIPVision" else returned.pooler_output.flatten(1)
        why = seewhy.explain(model, images[0], seewhy.similar_to(images[1]))
        assert why.score == pytest.approx(float(cosine_similarity(own[0], own[1], dim=0)), abs=1e-5)
        assert np.ptp(why.raw) > 0
        with pytest.raises(TargetError, match=f"vector of {own.shape[1]} numbers"):
            seewhy.explain(model, images[0])

    def test_a_body_by_name_gets_no_random_classifier(self, tmp_path: Path) -> None:
        import transformers as hf

        torch.manual_seed(0)
        model = hf.Dinov2Model(hf.Dinov2Config(**TOKENS)).eval()
        model.save_pretrained(tmp_path)
        images = torch.randn(2, 3, 32, 32)
        own = model(images).pooler_output.detach()
        why = seewhy.explain(f"hf:{tmp_path}", images[0], seewhy.similar_to(images[1]))
        assert why.score == pytest.approx(float(cosine_similarity(own[0], own[1], dim=0)), abs=1e-5)
        assert seewhy.load(f"hf:{tmp_path}", num_classes=3).module(images).logits.shape == (2, 3)


class TestPairs:
    def test_both_sides_and_their_pictures(self, model: Embedder, pictures: list, tmp_path: Path) -> None:
        ask = {"preprocess": {"size": (32, 32), "resize": None}}
        pair = seewhy.compare_pair(model, pictures[0], pictures[1], view="signed", **ask)
        one = seewhy.explain(model, pictures[0], seewhy.similar_to(pictures[1]), view="signed", **ask)
        other = seewhy.explain(model, pictures[1], seewhy.similar_to(pictures[0]), view="signed", **ask)
        assert pair[0].score == pytest.approx(pair[1].score, abs=1e-6)
        for found, alone in zip(pair, (one, other), strict=True):
            assert found.raw == pytest.approx(alone.raw, abs=1e-5)
            assert (found.image == alone.image).all()
        drawn = pair.figure()
        shown = [ax.images[0].get_array() for ax in drawn.axes if ax.images]
        assert len(shown) == 4
        for place, why in ((0, one), (1, other)):
            assert (shown[place] == np.asarray(why.overlay(opacity=0.0))).all()
            assert (shown[place + 2] == np.asarray(pair[place].overlay())).all()
        titles = [ax.get_title() for ax in drawn.axes if ax.images]
        assert titles[2].startswith("similarity to array: ")
        pair.save(tmp_path / "pair.png")
        with Image.open(tmp_path / "pair.png") as written:
            assert min(written.size) > 400

    def test_swapped(self, model: Embedder, batch: Tensor) -> None:
        pair = seewhy.compare_pair(model, batch[0], batch[1], "layer-cam", "body.1")
        swapped = seewhy.compare_pair(model, batch[1], batch[0], "layer-cam", "body.1")
        assert [why.score for why in pair] == pytest.approx([why.score for why in swapped][::-1], abs=1e-6)
        assert pair[0].raw == pytest.approx(swapped[1].raw, abs=1e-6)
        assert pair[1].raw == pytest.approx(swapped[0].raw, abs=1e-6)
        assert [why.layers for why in pair] == [("body.1",)] * 2

    def test_of_different_sizes(self, model: Embedder, batch: Tensor) -> None:
        small = batch[1, :, :16, :20]
        pair = seewhy.compare_pair(model, batch[0], small)
        expected = cosine_similarity(vectors(model, batch[:1])[0], vectors(model, small[None])[0], dim=0)
        assert [why.score for why in pair] == pytest.approx([float(expected)] * 2, abs=1e-6)

    def test_with_a_batch_axis_of_one(self, model: Embedder, batch: Tensor) -> None:
        pair = seewhy.compare_pair(model, batch[:1], batch[1:2])
        assert (pair[0].raw == seewhy.compare_pair(model, batch[0], batch[1])[0].raw).all()

    def test_of_a_model_with_several_inputs(self, model: Embedder, batch: Tensor) -> None:
        class Weighted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, image: Tensor, weights: Tensor) -> Tensor:
                return self.inner(image) * weights

        weights = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
        own = vectors(model, batch[:2]) * weights
        first, second = (batch[0], weights[0]), (batch[1], weights[1])
        expected = float(cosine_similarity(own[0], own[1], dim=0))
        assert seewhy.explain(Weighted(), first, seewhy.similar_to(second)).score == pytest.approx(expected, abs=1e-6)
        pair = seewhy.compare_pair(Weighted(), first, second, wrt="image")
        assert [why.score for why in pair] == pytest.approx([expected] * 2, abs=1e-6)

    def test_of_more_than_two(self, model: Embedder, batch: Tensor) -> None:
        with pytest.raises(ImageError, match="two images, each given alone"):
            seewhy.compare_pair(model, batch, batch[0])

    def test_a_grid_of_one_picture_stays_a_grid(self, model: Embedder, pictures: list) -> None:
        found = seewhy.compare(model, pictures[0], ["grad-cam", "layer-cam"], targets=[2])
        assert len([ax for ax in found.figure().axes if ax.images]) == 3


class TestRefusals:
    def test_another_length(self, model: Embedder, batch: Tensor) -> None:
        with pytest.raises(TargetError, match=r"vector of 5 numbers.*shape \(7,\)"):
            seewhy.explain(model, batch[0], seewhy.similar_to(torch.ones(5)))

    def test_no_direction(self, model: Embedder, batch: Tensor) -> None:
        with pytest.raises(TargetError, match="is zero"):
            seewhy.explain(model, batch[0], seewhy.similar_to(torch.zeros(7)))
        with pytest.raises(TargetError, match="NaN"):
            seewhy.explain(model, batch[0], seewhy.similar_to([float("nan")] * 7))

    def test_an_unknown_measure(self) -> None:
        with pytest.raises(TargetError, match=r"measure='euclid' is not known\. Known: cosine, dot"):
            seewhy.similar_to(torch.ones(7), measure="euclid")

    def test_no_such_image(self, model: Embedder, batch: Tensor) -> None:
        with pytest.raises(TargetError, match=r"image to compare with cannot be had.*nowhere\.png"):
            seewhy.explain(model, batch[0], "similar:nowhere.png")
        with pytest.raises(TargetError, match="empty"):
            seewhy.explain(model, batch[0], seewhy.similar_to([]))

    def test_maps_are_no_vectors(self, batch: Tensor) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        with pytest.raises(TargetError, match=r"answers with shape \(4, 22, 38\).*output="):
            seewhy.explain(model, batch[0], seewhy.similar_to(batch[1]))
        pooled = lambda returned: returned.mean((2, 3))  # noqa: E731
        own = pooled(vectors(model, batch))
        why = seewhy.explain(model, batch[0], seewhy.similar_to(batch[1]), output=pooled)
        assert why.score == pytest.approx(float(cosine_similarity(own[0], own[1], dim=0)), abs=1e-5)

    def test_the_model_is_given_back_after_the_other_image_failed(self, batch: Tensor) -> None:
        class Picky(Embedder):
            def forward(self, images: Tensor) -> Tensor:
                if images.shape[-1] != 40:
                    raise ValueError("40 wide")
                return super().forward(images)

        model = Picky().train()
        with pytest.raises(seewhy.RecordingError, match="40 wide"):
            seewhy.explain(model, batch[0], seewhy.similar_to(batch[1, :, :, :30]))
        assert all(part.training for part in model.modules())
        with pytest.raises(ModelError):
            seewhy.image_text(model)


def test_the_command(tmp_path: Path, pictures: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("a.png", "b.png"), pictures, strict=False):
        Image.fromarray(picture).save(name)
    ways = ["--target", "similar:b.png", "--model", "timm:resnet18", "--random"]
    told = CliRunner().invoke(app, ["explain", "a.png", *ways])
    assert told.exit_code == 0, told.output
    assert "grad-cam for similarity to b.png (" in told.output
    assert "index" not in told.output  # no table of classes
    assert (tmp_path / "a.why.png").exists()
