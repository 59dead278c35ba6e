"""Small models of images and texts, seeded, with a toy tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS = ("<pad>", "<end>", "a", "red", "blue", "green", "square", "circle", "dog", "cat", "photo", "of")
END = WORDS.index("<end>")
CONTEXT = 8


def tokenize(texts: list[str]) -> Tensor:
    """One number a word, an end, and padding."""
    rows = [[WORDS.index(word) for word in text.split()] + [END] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def tokenize_with_mask(texts: list[str]) -> dict[str, Tensor]:
    """The same, filled up to the most that the model takes, as SigLIP wants it, with a mask."""
    ids = tokenize(texts)
    ids = nn.functional.pad(ids, (0, CONTEXT - ids.shape[1]))
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


class Visual(nn.Module):
    """A small convolutional image tower."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(12, features)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(self.dropout(self.body(self.stem(images)).mean((2, 3))))


class TwoTowers(nn.Module):
    """What open_clip's models look like from outside; its text tower counts its runs."""

    def __init__(self, features: int = 10) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict({"conv": nn.Conv1d(16, 16, 1), "norm": nn.LayerNorm(16)})
        self.token_embedding = nn.Embedding(len(WORDS), 16)
        self.text_projection = nn.Linear(16, features)
        self.visual = Visual(features)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = None
        self.context_length = CONTEXT
        self.text_runs = 0

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images)

    def encode_text(self, ids: Tensor) -> Tensor:
        self.text_runs += len(ids)
        mask = (ids != 0)[..., None].to(self.text_projection.weight.dtype)
        words = self.token_embedding(ids)
        words = self.transformer["norm"](words + self.transformer["conv"](words.mT).mT)
        words = nn.functional.dropout(words, 0.5, self.training)  # of the whole model's own flag
        return self.text_projection((words * mask).sum(1) / mask.sum(1))

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a caller sees: normalised vectors of both sides, and the temperature."""
        image, text = self.encode_image(images), self.encode_text(ids)
        unit = nn.functional.normalize
        return unit(image, dim=-1), unit(text, dim=-1), self.logit_scale.exp()


def make_two_towers(seed: int = 0) -> TwoTowers:
    torch.manual_seed(seed)
    model = TwoTowers()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.normal_(0, 0.4)
    return model.eval()


def logits_per_image(model: TwoTowers, images: Tensor, texts: list[str]) -> Tensor:
    """By the model's own forward."""
    with torch.no_grad():
        image, text, scale = model(images, tokenize(texts))
    return scale * image @ text.T


HIDDEN = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**HIDDEN, "num_hidden_layers": 2, "vocab_size": len(WORDS), "max_position_embeddings": CONTEXT}
VISION = {**HIDDEN, "num_hidden_layers": 3, "image_size": 64, "patch_size": 8}


def make_clip(seed: int = 0) -> nn.Module:
    """Hugging Face's CLIPModel, tiny and random."""
    import transformers as hf

    torch.manual_seed(seed)
    text = {**TEXT, "eos_token_id": END, "bos_token_id": 2, "pad_token_id": 0}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)).eval()


def make_siglip(seed: int = 0) -> nn.Module:
    """Hugging Face's SiglipModel, tiny and random."""
    import transformers as hf

    torch.manual_seed(seed)
    text = {**TEXT, "eos_token_id": END, "bos_token_id": 2, "pad_token_id": 0, "projection_size": 32}
    model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=VISION)).eval()
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-2.0)
    return model
