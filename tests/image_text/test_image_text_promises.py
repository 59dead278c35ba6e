"""What holds for every model holds for models of images and texts, and what cannot be asked of them is told."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.errors import ModelError, RecordingError, TargetError
from two_towers import (
    CONTEXT,
    WORDS,
    logits_per_image,
    make_clip,
    make_two_towers,
    tokenize,
)

TEXTS = ["a dog", "a photo of a cat", "a red square"]
pytestmark = pytest.mark.usefixtures("one_core")

OF_ATTENTION = seewhy.Needs.ATTENTION | seewhy.Needs.ATTENTION_GRADIENTS | seewhy.Needs.ATTENTION_FORMATION


class TestPrecision:
    def test_bfloat16(self, images: Tensor) -> None:
        exact = seewhy.explain(
            seewhy.image_text(make_two_towers(), tokenizer=tokenize), images[0], "text:a dog-vs-a cat"
        )
        model = make_two_towers().bfloat16()
        why = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], "text:a dog-vs-a cat")
        assert why.score == pytest.approx(exact.score, abs=0.1)
        assert np.corrcoef(why.raw.ravel(), exact.raw.ravel())[0, 1] > 0.99

    def test_half_an_image_tower_beside_parameters_in_full(self, images: Tensor) -> None:
        model = make_two_towers()
        exact = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], labels=TEXTS)
        model.visual.bfloat16()
        why = seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], labels=TEXTS)
        assert why.score == pytest.approx(exact.score, abs=0.1)
        assert np.corrcoef(why.raw.ravel(), exact.raw.ravel())[0, 1] > 0.99


class TestPromises:
    @pytest.mark.parametrize("ways", [{"target": "text:a dog"}, {"labels": TEXTS}])
    def test_the_model_is_given_back_as_it_was(self, ways: dict, images: Tensor) -> None:
        model = make_two_towers().train()
        model.visual.proj.eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [part.training for part in model.modules()]
        state = torch.get_rng_state()
        seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images, **ways)
        assert [part.training for part in model.modules()] == modes
        assert all((model.state_dict()[name] == value).all() for name, value in before.items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
        assert (torch.get_rng_state() == state).all()

    def test_in_training_mode_the_answer_is_that_of_evaluation(self, images: Tensor) -> None:
        model = make_two_towers()
        own = logits_per_image(model, images, ["a dog"])
        why = seewhy.explain(seewhy.image_text(model.train(), tokenizer=tokenize), images[0], "text:a dog")
        assert why.score == pytest.approx(float(own[0, 0]), abs=1e-5)

    def test_also_after_an_exception(self, images: Tensor) -> None:
        model = make_two_towers().train()

        def fails(_ids: Tensor) -> Tensor:
            raise ValueError("no such word")

        model.encode_text = fails
        with pytest.raises(RecordingError, match=r"text tower of TwoTowers raised ValueError.*no such word"):
            seewhy.explain(seewhy.image_text(model, tokenizer=tokenize), images[0], "text:a dog")
        assert all(part.training for part in model.modules())

    def test_under_no_grad_frozen_and_inference_mode(self, images: Tensor) -> None:
        model = make_two_towers()
        ready = seewhy.image_text(model, tokenizer=tokenize)
        plain = seewhy.explain(ready, images[0], "text:a dog").raw
        with torch.no_grad():
            assert (seewhy.explain(ready, images[0], "text:a dog").raw == plain).all()
        with torch.inference_mode():
            assert (seewhy.explain(ready, images[0], "text:a dog").raw == plain).all()
        model.requires_grad_(requires_grad=False)
        assert (seewhy.explain(ready, images[0], "text:a dog").raw == plain).all()
        assert seewhy.explain(ready, images[0], "a dog", labels=TEXTS).raw == pytest.approx(plain, abs=1e-5)

    def test_two_threads_get_what_each_would_get_alone(self, images: Tensor) -> None:
        ready = seewhy.image_text(make_two_towers(), tokenizer=tokenize)
        asked = [("text:a dog", "rise"), ("text:a cat", "grad-cam"), (seewhy.similar_to(images[2]), "grad-cam")]
        alone = [seewhy.explain(ready, images[0], target, method, budget=30).raw for target, method in asked]
        found: dict[int, np.ndarray] = {}

        def run(number: int) -> None:
            target, method = asked[number]
            found[number] = seewhy.explain(ready, images[0], target, method, budget=30).raw

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all((found[number] == alone[number]).all() for number in range(3))


class TestRefusals:
    def test_no_tokenizer(self, images: Tensor) -> None:
        with pytest.raises(ModelError, match=r"CLIPModel has a text tower.*seewhy\.image_text\(model, tokenizer="):
            seewhy.explain(make_clip(), images[0], "text:a dog")
        with pytest.raises(ModelError, match="tokenizer"):
            seewhy.explain(make_two_towers(), images[0], labels=TEXTS)

    def test_a_text_that_is_too_long_is_not_cut(self, images: Tensor) -> None:
        ready = seewhy.image_text(make_two_towers(), tokenizer=tokenize)
        with pytest.raises(TargetError, match=f"takes {CONTEXT + 1} tokens, and the model takes at most {CONTEXT}"):
            seewhy.explain(ready, images[0], "text:" + " ".join(["dog"] * CONTEXT))

    @pytest.mark.parametrize("words", ["text:", "text: ", "text:a dog-vs-", 'text:""'])
    def test_an_empty_text(self, words: str, images: Tensor) -> None:
        with pytest.raises(TargetError, match="is empty"):
            seewhy.explain(seewhy.image_text(make_two_towers(), tokenizer=tokenize), images[0], words)

    def test_a_classifier_asked_about_a_text(self, small_net, batch: Tensor) -> None:
        with pytest.raises(TargetError, match="SmallNet has no text tower"):
            seewhy.explain(small_net, batch[0], "text:a dog")

    def test_but_a_class_may_be_called_so(self, small_net, batch: Tensor) -> None:
        names = ["text:a dog", "similar:b", "c", "d", "e"]
        assert seewhy.explain(small_net, batch[0], "text:a dog", labels=names).target_index == 0
        assert seewhy.explain(small_net, batch[0], "similar:b", labels=names).target_index == 1

    def test_a_zero_shot_classifier_knows_its_texts_only(self, images: Tensor) -> None:
        ask = seewhy.Explainer(seewhy.image_text(make_two_towers(), tokenizer=tokenize), labels=TEXTS)
        with pytest.raises(TargetError, match="not one of the 3 texts"):
            ask(images[0], "text:a blue circle")
        with pytest.raises(TargetError, match="Leave labels= out"):
            ask(images[0], seewhy.similar_to(images[1]))

    def test_a_vector_is_asked_nothing_by_default(self, images: Tensor) -> None:
        ready = seewhy.image_text(make_two_towers(), tokenizer=tokenize)
        for target in (None, 3, "top:2", "dog"):
            with pytest.raises(TargetError, match=r"vector of 10 numbers.*similar_to.*text:a dog"):
                seewhy.explain(ready, images[0], target)

    def test_models_that_are_none(self, small_net) -> None:
        with pytest.raises(ModelError, match="SmallNet is not a model of images and texts"):
            seewhy.image_text(small_net)

    def test_patches_of_varying_number(self) -> None:
        import transformers as hf

        tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        text = {**tiny, "vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2}
        model = hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config={**tiny, "num_patches": 16}))
        with pytest.raises(ModelError, match=r"NaFlex.*SiglipModel"):
            seewhy.image_text(model)

    @pytest.mark.parametrize(
        ("tokenizer", "told"),
        [
            (lambda texts: [[1, 2], [1]][: len(texts)], "did not turn 2 texts"),
            (lambda texts: torch.zeros(1, 4).long(), r"shape \(1, 4\) for 2 texts"),
            (lambda texts: {"input_ids": torch.zeros(4).long()}, r"shape \(4,\) for 2 texts"),
            (lambda texts: [WORDS.index(text) for text in texts], "ValueError"),
        ],
    )
    def test_a_tokenizer_that_gives_something_else(self, tokenizer, told: str, images: Tensor) -> None:
        with pytest.raises(ModelError, match=told):
            seewhy.explain(seewhy.image_text(make_two_towers(), tokenizer=tokenizer), images[0], "text:a dog-vs-a cat")
