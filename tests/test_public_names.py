"""What is public is frozen: a name that comes or goes is a decision, made by editing public_names.json."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import seewhy

FROZEN = json.loads((Path(__file__).parent / "public_names.json").read_text(encoding="utf-8"))


def parameters(function: object) -> list[str]:
    return [
        {"VAR_KEYWORD": "**"}.get(each.kind.name, "") + each.name
        for each in inspect.signature(function).parameters.values()
        if each.name != "self"
    ]


def members(kind: type) -> list[str]:
    own = (
        [*(field.name for field in fields(kind)), *vars(kind)] if hasattr(kind, "__dataclass_fields__") else vars(kind)
    )
    return sorted({name for name in own if not name.startswith("_")})


FOUND = {
    "seewhy": list(seewhy.__all__),
    **{
        f"{name}()": parameters(getattr(seewhy, name))
        for name in (
            "explain",
            "compare",
            "compare_pair",
            "doctor",
            "evaluate",
            "function",
            "image_text",
            "layers",
            "load",
            "measure",
            "method",
            "metric",
            "sanity",
            "similar_to",
        )
    },
    "Explainer()": parameters(seewhy.Explainer),
    "Explainer()()": parameters(seewhy.Explainer.__call__),
    "Explainer": members(seewhy.Explainer),
    "Explanation": members(seewhy.Explanation),
    "Comparison": members(seewhy.Comparison),
    "Evaluation": members(seewhy.Evaluation),
}


@pytest.mark.parametrize("of", sorted(FROZEN.keys() | FOUND.keys()))
def test_public_names_change_only_on_purpose(of: str) -> None:
    assert FOUND.get(of) == FROZEN.get(of)


@pytest.mark.parametrize("name", seewhy.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(seewhy, name))
    assert name in dir(seewhy)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'seewhy' has no attribute 'gradcam'"):
        _ = seewhy.gradcam


def test_explain_compare_and_the_explainer_take_the_same_words() -> None:
    words = {of: {name for name in FOUND[of] if name not in ("model", "self")} for of in FOUND}
    assert words["explain()"] == words["Explainer()"] | words["Explainer()()"]
    assert words["compare()"] - words["explain()"] == {"methods", "targets"}


def test_importing_seewhy_imports_nothing_heavy() -> None:
    code = "import sys, seewhy; print(sorted({'torch', 'matplotlib', 'numpy', 'PIL', 'timm', 'skimage'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
