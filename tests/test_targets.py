"""The question: what a caller writes, and the number that is explained."""

import math
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.errors import TargetError
from seewhy.maps import find_method
from seewhy.models import Labels
from seewhy.targets import (
    CallableTarget,
    Chances,
    ClassTarget,
    ContrastTarget,
    SimilarContrastTarget,
    Subject,
    are_distributions,
    ask,
)

LABELS = Labels(("tench, Tinca tinca", "tabby, tabby cat", "tiger cat", "tiger shark", "great white shark"))


def subjects(outputs: Tensor, labels: Labels | None = None) -> list[Subject]:
    return [Subject(output, "classes" if output.ndim == 1 else "other", labels) for output in outputs]


OUTPUT = torch.tensor([[1.0, 4.0, 3.0, 2.0, 0.0]])


def answer(wanted: object, output: Tensor = OUTPUT, labels: Labels | None = LABELS) -> tuple[float, str]:
    [[target]] = ask(wanted, subjects(output, labels))
    return float(target(output[0])), target.describe(labels)


SOFTMAX = [math.exp(score) / sum(math.exp(other) for other in (1, 4, 3, 2, 0)) for score in (1, 4, 3, 2, 0)]


@pytest.mark.parametrize(
    ("wanted", "score", "words"),
    [
        (None, 4, "tabby"),
        (2, 3, "tiger cat"),
        ("2", 3, "tiger cat"),
        (np.int64(3), 2, "tiger shark"),
        (torch.tensor(3), 2, "tiger shark"),
        ("TIGER CAT", 3, "tiger cat"),
        ("tinca tinca", 1, "tench"),
        ("tabby, tabby cat", 4, "tabby"),
        (" great ", 0, "great white shark"),
        ("tiger cat-vs-tench", 3 - 1, "tiger cat vs tench"),
        ("tiger cat vs tench", 3 - 1, "tiger cat vs tench"),
        ("Tiger Cat VS. 0", 3 - 1, "tiger cat vs tench"),
        ("probability", SOFTMAX[1], "probability of tabby"),
        ("probability:tiger cat", SOFTMAX[2], "probability of tiger cat"),
        ("Prob:2", SOFTMAX[2], "probability of tiger cat"),
        (lambda output: output[0] * 10, 10, "a function"),
        (torch.sum, 10, "sum"),
    ],
)
def test_every_way_to_ask_gives_its_number_and_its_words(wanted: object, score: float, words: str) -> None:
    found, told = answer(wanted)
    assert found == pytest.approx(score, rel=1e-6)
    assert told == words


def test_without_label_names_classes_are_numbered() -> None:
    assert answer("0-vs-1", labels=None) == (-3.0, "class 0 vs class 1")


def test_the_predicted_class_is_found_for_each_sample() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    [question] = ask(None, subjects(outputs))
    assert [target.index for target in question] == [1, 0]


def test_top_k_asks_one_question_a_rank_with_each_samples_own_classes() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert [[target.index for target in question] for question in ask("Top: 2", subjects(outputs))] == [[1, 0], [2, 1]]


def test_a_list_asks_each_sample_its_own_question() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    [(first, second)] = ask(["2", "0-vs-1"], subjects(outputs))
    assert (float(first(outputs[0])), float(second(outputs[1]))) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (5, "5 classes, 0 to 4"),
        (-1, "5 classes, 0 to 4"),
        ("tigr cat", "Nearest: 'tiger cat'"),
        ("tiger", "may mean 2 classes: 2 'tiger cat', 3 'tiger shark'"),
        ("tiger cat vs nonsense", "No class is called 'nonsense'"),
        (True, "is a bool"),
        (torch.tensor(1.5), "not a whole number"),
        (torch.tensor([1, 2]), "is a Tensor"),
        ([1, 2], "2 targets were given for 1 images"),
        ([], "0 targets were given for 1 images"),
        ("top:6", "1 to 5 classes"),
        ("top:0", "1 to 5 classes"),
        ("top:many", "whole number"),
        (["top:2"], "for all images at once"),
    ],
)
def test_what_cannot_be_asked_is_told_with_what_can(wanted: object, told: str) -> None:
    with pytest.raises(TargetError) as caught:
        ask(wanted, subjects(OUTPUT, LABELS))
    assert told in str(caught.value)


def test_a_name_without_known_names_says_how_to_give_them() -> None:
    with pytest.raises(TargetError, match="Give labels=, or an index"):
        ask("tabby", subjects(OUTPUT))


@pytest.mark.parametrize("wanted", [None, 1, "top:2", "probability"])
def test_a_model_that_gives_no_score_a_class_needs_a_callable(wanted: object) -> None:
    with pytest.raises(TargetError, match="Give target= a callable"):
        ask(wanted, subjects(torch.zeros(1, 3, 8, 8)))
    dense = torch.arange(12.0).view(1, 3, 2, 2)
    [[target]] = ask(lambda output: output[2].mean(), subjects(dense))
    assert float(target(dense[0])) == 9.5


@pytest.mark.parametrize(
    ("wrong", "found"), [(lambda output: output[:2], "shape (2,)"), (lambda output: float(output[0]), "float")]
)
def test_a_callable_that_returns_no_number_is_told_what_it_returned(wrong: object, found: str) -> None:
    [[target]] = ask(wrong, subjects(OUTPUT))
    with pytest.raises(TargetError, match="must return one number as a tensor") as caught:
        target(OUTPUT[0])
    assert found in str(caught.value)


def test_a_callables_graph_is_kept() -> None:
    output = torch.tensor([[1.0, 2.0]], requires_grad=True)
    [[target]] = ask(lambda scores: scores[0] * scores[1], subjects(output))
    target(output[0]).backward()
    assert output.grad.tolist() == [[2.0, 1.0]]


class Margin:
    """A caller's own target: anything with an index and words of its own."""

    index = 1

    def __call__(self, output: Tensor) -> Tensor:
        return output[1] - output.mean()

    def describe(self, labels: Labels | None) -> str:
        return "margin"


def test_a_target_of_ones_own_says_its_own_words() -> None:
    assert answer(Margin()) == (2.0, "margin")


def told(wanted: object, output: Tensor, chances: Chances, labels: Labels | None = None) -> tuple[float, str]:
    """Return a target's number and words for one sample whose scores become probabilities in this way."""
    [[target]] = ask(wanted, [Subject(output, labels=labels, chances=chances)])
    return float(target(output)), target.describe(labels)


def test_outputs_that_are_probabilities_already_are_not_put_through_softmax_again() -> None:
    ready = torch.tensor([0.2, 0.7, 0.1])
    assert told("probability", ready, Chances(ready=True)) == (pytest.approx(0.7), "probability of class 1")
    assert told("expected", ready, Chances(ready=True))[0] == pytest.approx(0.7 + 2 * 0.1)
    raised = [math.exp(each) for each in (0.2, 0.7, 0.1)]
    assert told("probability", ready, Chances())[0] == pytest.approx(raised[1] / sum(raised), rel=1e-5)


def test_a_distribution_is_known_by_its_values() -> None:
    ready = torch.tensor([[0.2, 0.7, 0.1], [0.0, 1.0, 0.0]])
    assert are_distributions(ready)
    assert not are_distributions(torch.tensor([[0.2, 0.7, 0.1], [0.2, 0.7, 0.3]]))  # each of them, summing to 1
    assert not are_distributions(torch.tensor([[-0.2, 0.9, 0.3]]))
    assert not are_distributions(torch.tensor([[1.0]]))  # one score is no distribution


def test_a_single_output_has_no_softmax_probability() -> None:
    [[target]] = ask("probability", subjects(torch.tensor([[3.0]])))
    with pytest.raises(TargetError, match="sigmoid"):
        target(torch.tensor([3.0]))


def test_contrast_with_similar_classes_takes_the_scores_nearest_to_the_class() -> None:
    output = torch.tensor([10.0, 9.0, 12.0, 0.0])
    retarget = find_method("finer-cam").retarget
    # Nearest to 10 are 9 and 12; their mean is 10.5.
    near = retarget(ClassTarget(0), Subject(output), strength=0.5, references=2)
    assert near == SimilarContrastTarget(0, (1, 2), 0.5)
    assert float(near(output)) == pytest.approx(10 - 0.5 * 10.5)
    # More references than there are other classes: all of them.
    assert float(retarget(ClassTarget(0), Subject(output), strength=1.0, references=9)(output)) == pytest.approx(10 - 7)
    for refused, scores in (
        (ClassTarget(0), output[:1]),
        (ContrastTarget(0, 1), output),
        (CallableTarget(len), output),
    ):
        with pytest.raises(seewhy.MethodError, match="one class against similar ones"):
            retarget(refused, Subject(scores))


def test_the_expected_class_of_ordered_ones() -> None:
    assert answer("expected") == (
        pytest.approx(sum(place * chance for place, chance in enumerate(SOFTMAX)), rel=1e-5),
        ANY,
    )
    steps = torch.tensor([[3.0, 0.5, -2.0]])  # above the first threshold, above the second, above the third
    [[target]] = ask("expected", [Subject(steps[0], chances=Chances(independent=True))])
    assert float(target(steps[0])) == pytest.approx(sum(1 / (1 + math.exp(-each)) for each in (3, 0.5, -2)), rel=1e-5)


def test_own_probabilities_are_not_put_through_a_sigmoid_twice() -> None:
    done = torch.tensor([0.2, 0.9, 0.4])
    assert told("probability:2", done, Chances(independent=True, ready=True))[0] == pytest.approx(0.4)
    assert told("expected", done, Chances(independent=True, ready=True))[0] == pytest.approx(1.5)
    # Logits between 0 and 1 are logits.
    assert told("probability:2", done, Chances(independent=True))[0] == pytest.approx(1 / (1 + math.exp(-0.4)))


@pytest.mark.parametrize("names", [("0", "1"), ("stage: early", "stage: late"), ("expected", "probability")])
def test_one_score_for_two_classes_with_names_that_mean_something_else_too(names: tuple[str, str]) -> None:
    output = torch.tensor([3.0])
    assert told(names[0], output, Chances(), Labels(names)) == (-3.0, names[0])
    assert told(names[1], output, Chances(), Labels(names)) == (3.0, names[1])


@pytest.mark.parametrize(
    ("chances", "score", "second"),
    [
        (Chances(independent=True), 0.3, 1 / (1 + math.exp(-0.3))),
        (Chances(independent=True), -0.3, 1 / (1 + math.exp(0.3))),
        (Chances(ready=True), 0.3, 0.3),
        (Chances(ready=True), 0.7, 0.7),
    ],
)
def test_one_score_for_two_named_classes_in_its_own_unit(chances: Chances, score: float, second: float) -> None:
    output, pair = torch.tensor([score]), Labels(("cat", "dog"))
    likelier = "dog" if second > 0.5 else "cat"
    assert told(None, output, chances, pair) == (pytest.approx(score if likelier == "dog" else -score), likelier)
    assert told("probability:dog", output, chances, pair) == (pytest.approx(second), "probability of dog")
    assert told("probability:cat", output, chances, pair) == (pytest.approx(1 - second), "probability of cat")
    assert told("probability", output, chances, pair) == (
        pytest.approx(max(second, 1 - second)),
        f"probability of {likelier}",
    )
