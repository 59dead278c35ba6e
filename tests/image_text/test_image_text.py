"""Models of images and texts against their own logits, and gradients by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from two_towers import (
    CONTEXT,
    WORDS,
    TwoTowers,
    logits_per_image,
    make_clip,
    make_siglip,
    make_two_towers,
    tokenize,
    tokenize_with_mask,
)

TEXTS = ["a dog", "a photo of a cat", "a red square"]
pytestmark = pytest.mark.usefixtures("one_core")

OF_ATTENTION = seewhy.Needs.ATTENTION | seewhy.Needs.ATTENTION_GRADIENTS | seewhy.Needs.ATTENTION_FORMATION


def own_logits(model: nn.Module, images: Tensor, texts: list[str]) -> Tensor:
    with torch.no_grad():
        return model(pixel_values=images, **tokenize_with_mask(texts)).logits_per_image


@pytest.mark.parametrize("make", [make_clip, make_siglip])
class TestHuggingFace:
    def test_a_texts_score_is_the_models_own(self, make, images: Tensor) -> None:
        model = make()
        ready = seewhy.image_text(model, tokenizer=tokenize_with_mask)
        own = own_logits(model, images, TEXTS)
        for number, text in enumerate(TEXTS):
            found = seewhy.explain(ready, images, f"text:{text}")
            assert [why.score for why in found] == pytest.approx(own[:, number].tolist(), abs=1e-5)
            assert {why.target for why in found} == {f'"{text}"'}
            assert found[0].prediction == ()

    @pytest.mark.parametrize(
        "words", ["a dog-vs-a red square", "\"a dog\"-vs-'a red square'", "a dog -VS- a red square"]
    )
    def test_two_texts_score_is_the_difference(self, make, images: Tensor, words: str) -> None:
        model = make()
        own = own_logits(model, images, TEXTS)
        found = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize_with_mask), images, f"text:{words}")
        assert [why.score for why in found] == pytest.approx((own[:, 0] - own[:, 2]).tolist(), abs=1e-5)
        assert found[0].target == '"a dog" vs "a red square"'

    def test_labels_make_a_zero_shot_classifier(self, make, images: Tensor) -> None:
        model = make()
        own = own_logits(model, images, TEXTS)
        chances = own.sigmoid() if make is make_siglip else own.softmax(-1)
        ask = seewhy.Explainer(seewhy.image_text(model, tokenizer=tokenize_with_mask), labels=TEXTS)
        for row, why in enumerate(ask(images)):
            ranked = own[row].argsort(descending=True).tolist()
            assert [p.index for p in why.prediction] == ranked
            assert [p.name for p in why.prediction] == [TEXTS[index] for index in ranked]
            assert [p.score for p in why.prediction] == pytest.approx(own[row, ranked].tolist(), abs=1e-5)
            assert [p.probability for p in why.prediction] == pytest.approx(chances[row, ranked].tolist(), abs=1e-5)
            assert why.target == TEXTS[ranked[0]]
        assert [why.target_index for why in ask(images[0], "top:2")] == own[0].topk(2).indices.tolist()
        assert ask(images[0], "a photo of a cat").score == pytest.approx(float(own[0, 1]), abs=1e-5)
        assert ask(images[0], "text:a photo of a cat").target_index == 1
        assert ask(images[0], "text:a dog-vs-a red square").score == pytest.approx(
            float(own[0, 0] - own[0, 2]), abs=1e-5
        )
        assert ask(images[0], "probability:a dog").score == pytest.approx(float(chances[0, 0]), abs=1e-5)
        assert ask(images[0], "probability").score == pytest.approx(float(chances[0].max()), abs=1e-5)

    def test_grad_cam_is_the_gradient_of_the_models_own_score(self, make, images: Tensor) -> None:
        model = make()
        why = seewhy.explain(
            seewhy.image_text(model, tokenizer=tokenize_with_mask), images[0], "text:a photo of a cat", view="signed"
        )
        kept: list[Tensor] = []
        part = model.get_submodule(why.layers[0])
        handle = part.register_forward_hook(lambda _m, _i, output: kept.append(output) or None)
        score = model(pixel_values=images[:1], **tokenize_with_mask(TEXTS)).logits_per_image[0, 1]
        handle.remove()
        [gradient] = torch.autograd.grad(score, kept)
        prefix = kept[0].shape[1] - 64
        cells, slopes = kept[0][0, prefix:].detach(), gradient[0, prefix:]
        expected = (cells @ slopes.mean(0)).reshape(8, 8)
        assert why.raw == pytest.approx(expected.numpy(), abs=1e-5)
        assert np.ptp(why.raw) > 1e-4

    def test_saliency_is_the_gradient_of_the_models_own_score(self, make, images: Tensor) -> None:
        model = make()
        ready = seewhy.image_text(model, tokenizer=tokenize_with_mask)
        why = seewhy.explain(ready, images[0], "text:a dog-vs-a red square", method="input-x-gradient")
        leaf = images[:1].clone().requires_grad_()
        logits = model(pixel_values=leaf, **tokenize_with_mask(TEXTS)).logits_per_image[0]
        [gradient] = torch.autograd.grad(logits[0] - logits[2], leaf)
        assert why.colours == pytest.approx((gradient * leaf)[0].detach().numpy(), abs=1e-5)

    def test_attention_is_the_image_towers(self, make, images: Tensor) -> None:
        ready = seewhy.image_text(make(), tokenizer=tokenize_with_mask)
        methods = ["attention", "generic-attention", "legrad"]
        found = seewhy.compare(ready, images[0], methods, targets=["text:a dog", "text:a red square"])
        assert not found.skipped
        assert {why.raw.shape for why in found} == {(8, 8)}
        assert (found[0].raw == found[1].raw).all()  # blind to the question
        assert np.abs(found[2].raw - found[3].raw).max() > 1e-5
        assert np.abs(found[4].raw - found[5].raw).max() > 1e-5

    def test_only_the_image_towers_layers_are_listed(self, make) -> None:
        table = seewhy.layers(make())
        assert all(row.name.startswith("vision_model.") for row in table)
        assert [row.name for row in table.stages][:2] == [
            "vision_model.encoder.layers.0",
            "vision_model.encoder.layers.1",
        ]

    def test_preprocessing_is_the_usual_one_of_its_kind_and_told(self, make) -> None:
        why = seewhy.explain(
            seewhy.image_text(make(), tokenizer=tokenize), np.zeros((80, 100, 3), np.uint8), "text:a dog"
        )
        assert why.geometry.input_shape == (64, 64)
        assert why.geometry.seen().all() == (make is make_siglip)  # SigLIP stretches, CLIP crops
        assert any("preprocessing assumed" in note for note in why.notes)


class TestLikeOpenClip:
    def test_scores_and_zero_shot(self, images: Tensor) -> None:
        model = make_two_towers()
        own = logits_per_image(model, images, TEXTS)
        ready = seewhy.image_text(model, tokenizer=tokenize)
        found = seewhy.explain(ready, images, ["text:a dog", "text:a red square", "text:a photo of a cat"])
        assert [why.score for why in found] == pytest.approx(
            [float(own[0, 0]), float(own[1, 2]), float(own[2, 1])], abs=1e-5
        )
        zero_shot = seewhy.explain(ready, images, labels=TEXTS)
        assert [why.score for why in zero_shot] == pytest.approx(own.amax(1).tolist(), abs=1e-5)
        assert [why.probability for why in zero_shot] == pytest.approx(own.softmax(1).amax(1).tolist(), abs=1e-5)

    def test_layers_are_named_as_in_the_model_and_taken_as_modules(self, images: Tensor) -> None:
        model = make_two_towers()
        ready = seewhy.image_text(model, tokenizer=tokenize)
        assert {row.name.partition(".")[0] for row in seewhy.layers(ready, images[0])} == {"visual"}
        by_name = seewhy.explain(ready, images[0], "text:a dog", layers="visual.body")
        by_module = seewhy.explain(ready, images[0], "text:a dog", layers=model.visual.body)
        assert by_name.layers == by_module.layers == ("visual.body",)
        assert (by_name.raw == by_module.raw).all()

    @pytest.mark.parametrize("method", ["occlusion", "rise", "score-cam", "ablation-cam", "integrated-gradients"])
    def test_the_text_tower_runs_once_a_text(self, method: str, images: Tensor) -> None:
        model = make_two_towers()
        ready = seewhy.image_text(model, tokenizer=tokenize)
        why = seewhy.explain(ready, images[0], "text:a dog-vs-a cat", method=method, budget=40)
        assert np.ptp(why.raw) > 0
        assert why.cost.forwards + why.cost.replays > 10
        assert model.text_runs == 2

    def test_every_method_that_the_model_allows_makes_maps(self, images: Tensor) -> None:
        ready = seewhy.image_text(make_two_towers(), tokenizer=tokenize)
        found = seewhy.compare(ready, images[0], "all", targets=["text:a dog", "text:a cat"], budget=20)
        of_attention = {entry.name for entry in seewhy.methods() if entry.needs & OF_ATTENTION}
        assert set(found.skipped) <= {"cam", "finer-cam", *of_attention}
        by_method = {why.method: why for why in found}
        assert by_method.keys() >= {
            "grad-cam",
            "layer-cam",
            "rise",
            "occlusion",
            "integrated-gradients",
            "guided-backprop",
        }
        zero_shot = seewhy.compare(ready, images[0], ["finer-cam", "grad-cam"], labels=TEXTS)
        assert [why.method for why in zero_shot] == ["finer-cam", "grad-cam"]

    @pytest.mark.parametrize("method", ["grad-cam", "rise", "integrated-gradients"])
    def test_a_batch_is_one_by_one(self, method: str, images: Tensor) -> None:
        ask = seewhy.Explainer(seewhy.image_text(make_two_towers(), tokenizer=tokenize))
        together = ask(images, "text:a dog", method, budget=30)
        for image, why in zip(images, together, strict=True):
            assert why.raw == pytest.approx(ask(image, "text:a dog", method, budget=30).raw, abs=1e-5)

    def test_an_unnamed_instance_answers_about_images_without_a_tokenizer(self, images: Tensor) -> None:
        model = make_two_towers()
        why = seewhy.explain(model, images[0], seewhy.similar_to(images[1]))
        with torch.no_grad():
            one, other = model.encode_image(images[:2])
        assert why.score == pytest.approx(float(nn.functional.cosine_similarity(one, other, dim=0)), abs=1e-5)
        assert why.model == "TwoTowers"

    def test_its_own_preprocessing_is_read(self) -> None:
        model = make_two_towers()
        model.visual.preprocess_cfg = {
            "size": 32, "mode": "RGB", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear",
            "resize_mode": "squash",
        }  # fmt: skip
        ready = seewhy.image_text(model, tokenizer=tokenize)
        assert ready.notes == ()
        assert ready.preprocess == seewhy.Preprocess(
            (32, 32), None, "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
        )
        given = seewhy.image_text(model, tokenizer=tokenize, preprocess={"size": (48, 48)})
        assert (given.preprocess.size, given.preprocess.mean) == ((48, 48), (0.1, 0.2, 0.3))

    def test_wrapped_models_are_found(self, images: Tensor) -> None:
        model = make_two_towers()
        plain = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], "text:a dog")
        for wrapped in (nn.DataParallel(model), torch.compile(model)):
            why = seewhy.explain(seewhy.image_text(wrapped, tokenizer=tokenize), images[0], "text:a dog")
            assert (why.raw == plain.raw).all()

    def test_a_model_without_a_temperature_has_similarities_as_scores(self, images: Tensor) -> None:
        model = make_two_towers()
        own = logits_per_image(model, images, TEXTS) / model.logit_scale.exp().detach()
        del model.logit_scale
        why = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], "text:a dog")
        assert why.score == pytest.approx(float(own[0, 0]), abs=1e-5)


def hugging_face_folder(folder: Path, model: nn.Module) -> str:
    """Write a model with a tokenizer as Hugging Face keeps them."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = {"pad_token": "<pad>", "eos_token": "<end>"}
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("$A <end>", special_tokens=[("<end>", 1)])
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_by_name_with_its_tokenizer(tmp_path: Path, images: Tensor) -> None:
    model = make_clip()
    name = hugging_face_folder(tmp_path / "clip", model)
    own = own_logits(model, images, TEXTS)
    loaded = seewhy.load(f"hf:{name}")
    assert seewhy.explain(loaded, images[0], "text:a dog").score == pytest.approx(float(own[0, 0]), abs=1e-5)
    zero_shot = seewhy.explain(loaded, images, labels=TEXTS)
    assert [why.score for why in zero_shot] == pytest.approx(own.amax(1).tolist(), abs=1e-5)


def test_by_name_a_sigmoid_models_texts_are_filled_up(tmp_path: Path, images: Tensor) -> None:
    model = make_siglip()
    name = hugging_face_folder(tmp_path / "siglip", model)
    ids = tokenize(["a dog"])
    filled = torch.cat([ids, torch.zeros(1, CONTEXT - ids.shape[1], dtype=torch.long)], 1)
    with torch.no_grad():
        own = model(pixel_values=images[:1], input_ids=filled, attention_mask=(filled != 0).long()).logits_per_image
    why = seewhy.explain(f"hf:{name}", images[0], "text:a dog")
    assert why.score == pytest.approx(float(own[0, 0]), abs=1e-5)


def test_the_command_asks_about_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from seewhy.cli.commands import app

    name = hugging_face_folder(tmp_path / "clip", make_clip())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["explain", "x.png", "--model", f"hf:{name}", "--target", "text:a dog"])
    assert told.exit_code == 0, told.output
    assert 'grad-cam for "a dog" (' in told.output
    assert (tmp_path / "x.why.png").exists()
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    told = CliRunner().invoke(app, ["explain", "x.png", "--model", f"hf:{name}", "--labels", "texts.txt"])
    assert told.exit_code == 0, told.output
    assert "a cat" in told.output


def test_two_towers_of_a_factory(monkeypatch: pytest.MonkeyPatch, images: Tensor) -> None:
    """What a user's own package.module:factory returns may be ready made."""
    import two_towers

    monkeypatch.setattr(two_towers, "ready", lambda: seewhy.image_text(TwoTowers(), tokenizer=tokenize), raising=False)
    why = seewhy.explain("two_towers:ready", images[0], "text:a dog")
    assert why.target == '"a dog"'
