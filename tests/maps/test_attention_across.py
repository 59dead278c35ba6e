"""Generic attention relevance across tokens of several kinds: a decoder's queries and a picture, a text and a picture.

The weights come from the models' own hands, never through the library; what is made of them is written out with loops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional

import seewhy

pytestmark = pytest.mark.usefixtures("one_core")
Array = np.ndarray
METHOD = "generic-attention"


def evidence(weights: Tensor, score: Tensor) -> Array:
    """Eq. 5: the mean over the heads of the positive part of weights times derivative."""
    [gradient] = torch.autograd.grad(score, weights, retain_graph=True, allow_unused=True)
    if gradient is None:
        return np.zeros(weights.shape[-2:])
    product = (weights * gradient)[0].detach().double().numpy()
    return sum(np.maximum(head, 0) for head in product) / len(product)


def normalised(relevance: Array) -> Array:
    """Eq. 8 and 9."""
    result = np.eye(len(relevance))
    for row in range(len(relevance)):
        taken = relevance[row] - np.eye(len(relevance))[row]
        if taken.sum() > 0:
            result[row] += taken / taken.sum()
    return result


def encoded_and_decoded(encoder: list[Array], decoder: list[tuple[Array, Array]]) -> Array:
    """Return R_qi `(queries, places)`: the encoder's layers, then the decoder's, each among its queries and at the picture."""
    ii = np.eye(encoder[0].shape[0])
    for own in encoder:
        ii = ii + own @ ii
    queries = decoder[0][0].shape[0]
    qq, qi = np.eye(queries), np.zeros((queries, len(ii)))
    for own, across in decoder:
        qq, qi = qq + own @ qq, qi + own @ qi
        qi = qi + normalised(qq).T @ across @ normalised(ii)
    return qi


def close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert expected.max() > 0
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), atol=1e-5)


def lively(model: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "backbone" not in name and "conv" not in name:
                around = float("norm" in name and name.endswith("weight"))
                parameter.copy_(around + scale * torch.randn(parameter.shape, generator=generator))
    return model.eval().double()


@pytest.fixture(scope="module")
def detr() -> nn.Module:
    torch.manual_seed(0)
    body = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic")
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "attn_implementation": "eager"}
    size = {"encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 32}
    config = hf.DetrConfig(backbone_config=body, num_queries=7, num_labels=4, **size, **heads)
    model = lively(hf.DetrForObjectDetection(config))
    with torch.no_grad():
        model.class_labels_classifier.bias[-1] -= 5  # "nothing there"
        model.model.query_position_embeddings.weight.mul_(8)  # or all queries would find the same
        model.bbox_predictor.layers[-1].bias[2:] -= 5  # and boxes would cover each other
    return model


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(3, 96, 160, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("box", [0, 1])
@pytest.mark.parametrize("fused", [False, True])
def test_a_box_of_detr_has_the_relevance_of_its_own_query(
    detr: nn.Module, image: Tensor, box: int, fused: bool
) -> None:
    detr.config._attn_implementation = "eager"
    out = detr(image[None], output_attentions=True)
    sure = out.logits[0].softmax(-1)[:, :-1].amax(-1)
    why = seewhy.explain(detr, image, f"box:{box}", METHOD)
    query = int((sure - why.score).abs().argmin())
    assert (query == int(sure.argmax())) == (box == 0)
    score = sure[query]
    expected = encoded_and_decoded(
        [evidence(weights, score) for weights in out.encoder_attentions],
        [
            (evidence(own, score), evidence(across, score))
            for own, across in zip(out.decoder_attentions, out.cross_attentions, strict=True)
        ],
    )[query]
    detr.config._attn_implementation = "sdpa" if fused else "eager"
    why = seewhy.explain(detr, image, f"box:{box}", METHOD)
    close(why.raw, expected.reshape(3, 5))
    looked = seewhy.explain(detr, image, f"box:{box}", "attention")
    close(looked.raw, out.cross_attentions[-1][0].mean(0)[query].detach().numpy().reshape(3, 5))


class Attend(nn.Module):
    """Attention written by hand, which keeps its weights."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.qkv = heads, nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, mine: Tensor, theirs: Tensor) -> Tensor:
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in zip(self.qkv, (mine, theirs, theirs), strict=True)
        )
        self.kept = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return mine + (self.kept @ v).transpose(1, 2).flatten(2)


class PictureAndText(nn.Module):
    """Patches and words, which look at each other at the same time (as in LXMERT), or words after the patches did."""

    def __init__(self, read: str, *, at_once: bool, layers: int = 2) -> None:
        super().__init__()
        self.read, self.at_once = read, at_once
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.words = nn.Embedding(9, 12)
        self.layers = nn.ModuleList(nn.ModuleList(Attend(12) for _ in range(4)) for _ in range(layers))
        self.classes = nn.Linear(12, 3)

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        picture = self.patches(pixel_values).flatten(2).mT
        text = self.words(input_ids)
        for to_picture, to_text, within_text, within_picture in self.layers:
            before = text
            text = to_picture(text, picture)
            picture = to_text(picture, before if self.at_once else text)
            text = within_text(text, text)
            picture = within_picture(picture, picture)
        read = {"text": [text[:, 0]], "picture": [picture.mean(1)], "both": [text[:, 0], picture.mean(1)]}
        return self.classes(sum(read[self.read]))


def of_both(model: PictureAndText, score: Tensor, places: int, words: int) -> dict[str, Array]:
    """Return `(words, places)` and `(places, places)`: what the words, and the places, took from the places."""
    tt, ii, ti, it = np.eye(words), np.eye(places), np.zeros((words, places)), np.zeros((places, words))
    for to_picture, to_text, within_text, within_picture in model.layers:
        across, back = evidence(to_picture.kept, score), evidence(to_text.kept, score)
        seen_tt, seen_ti = tt, ti
        ti, tt = ti + normalised(tt).T @ across @ normalised(ii), tt + across @ it
        if not model.at_once:
            seen_tt, seen_ti = tt, ti
        it, ii = it + normalised(ii).T @ back @ normalised(seen_tt), ii + back @ seen_ti
        own = evidence(within_text.kept, score)
        tt, ti = tt + own @ tt, ti + own @ ti
        own = evidence(within_picture.kept, score)
        ii, it = ii + own @ ii, it + own @ it
    return {"text": ti, "picture": ii}


@pytest.mark.parametrize("read", ["text", "picture", "both"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_text_and_a_picture_that_look_at_each_other(read: str, at_once: bool) -> None:
    torch.manual_seed(0)
    model = lively(PictureAndText(read, at_once=at_once), 0.3)
    image = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    words = torch.tensor([[3, 1, 4, 1, 5]])
    score = model(image[None], words)[0, 1]
    taken = of_both(model, score, 8, 5)
    expected = np.zeros(8)
    if read in ("text", "both"):
        expected += taken["text"][0]
    if read in ("picture", "both"):
        expected += taken["picture"].mean(0)
    why = seewhy.explain(model, {"pixel_values": image, "input_ids": words[0]}, 1, METHOD, wrt="pixel_values")
    close(why.raw, expected.reshape(2, 4))
    assert any("depends on nothing" in note for note in why.notes) == (read != "both")


@pytest.mark.parametrize("method", ["attention-rollout", "legrad"])
def test_methods_for_one_kind_of_tokens_name_the_one_for_several(detr: nn.Module, image: Tensor, method: str) -> None:
    with pytest.raises(seewhy.MethodError, match=r"7 x 15.*Use 'generic-attention'"):
        seewhy.explain(detr, image, "box:0", method)


def test_as_many_words_as_patches_are_not_taken_for_one_kind() -> None:
    torch.manual_seed(0)
    model = lively(PictureAndText("text", at_once=True))
    image = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    words = torch.tensor([3, 1, 4, 1, 5, 2, 6, 5])
    with pytest.raises(seewhy.MethodError, match=r"do not follow each other|not one graph|differentiated"):
        seewhy.explain(model, {"pixel_values": image, "input_ids": words}, 1, METHOD, wrt="pixel_values")


def test_as_many_queries_as_places_are_refused(image: Tensor) -> None:
    torch.manual_seed(0)
    body = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic")
    small = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = lively(
        hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=body, num_queries=15, num_labels=4, **small, **heads))
    )
    with pytest.raises(seewhy.MethodError, match=r"do not follow each other.*15 each.*a picture of another size"):
        seewhy.explain(model, image, "box:0", METHOD)


SIDE = 48


@dataclass
class Drawn:
    """A picture of up to three patterns in noise: which are there, and where."""

    pixels: Tensor
    present: Tensor
    boxes: list[tuple[slice, slice]]


def draw(draws: np.random.Generator) -> Drawn:
    pixels = draws.normal(0, 0.4, (3, SIDE, SIDE))
    quarters, present = draws.permutation(4)[:3], draws.random(3) < 0.6
    row, column = np.mgrid[:14, :14] // 2 % 2
    boxes = []
    for kind, quarter in enumerate(quarters):
        top, left = (int(value) for value in draws.integers(0, 10, 2) + 24 * np.array(divmod(quarter, 2)))
        boxes.append((slice(top, top + 14), slice(left, left + 14)))
        if present[kind]:
            pixels[(slice(None), *boxes[-1])][:, [row == 0, column == 0, row == column][kind]] += 2
    return Drawn(torch.tensor(pixels, dtype=torch.float32), torch.tensor(present, dtype=torch.float32), boxes)


class Queries(nn.Module):
    """One learnt query for each pattern, which looks for it in the picture (as in Query2Label): torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 6, 6)
        self.positions = nn.Parameter(0.02 * torch.randn(64, 48))
        self.queries = nn.Parameter(torch.randn(3, 48))
        self.transformer = nn.Transformer(48, 4, 1, 2, 96, 0.0, batch_first=True)
        self.present = nn.Linear(48, 1)

    def forward(self, images: Tensor) -> Tensor:
        places = self.patches(images).flatten(2).mT + self.positions
        queries = self.queries.expand(len(images), -1, -1)
        return self.present(self.transformer(places, queries))[..., 0]


def test_each_query_of_a_trained_decoder_points_at_what_it_looks_for() -> None:
    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    model = Queries().train()
    learn = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(250):
        drawn = [draw(draws) for _ in range(64)]
        scores = model(torch.stack([each.pixels for each in drawn]))
        loss = functional.binary_cross_entropy_with_logits(scores, torch.stack([each.present for each in drawn]))
        learn.zero_grad()
        loss.backward()
        learn.step()
    ask = seewhy.Explainer(model.eval(), multi_label=True)
    hits = []
    for each in (draw(draws) for _ in range(40)):
        for kind in each.present.nonzero()[:, 0].tolist():
            heat = ask(each.pixels, kind, METHOD).heatmap
            y, x = np.unravel_index(heat.argmax(), heat.shape)
            hits.append(y in range(SIDE)[each.boxes[kind][0]] and x in range(SIDE)[each.boxes[kind][1]])
    assert np.mean(hits) >= 0.9
