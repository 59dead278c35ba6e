"""What a call asks for, checked before the model is run."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.errors import LayerError, MethodError, TargetError
from seewhy.maps import methods
from seewhy.maps.smoothing import as_smoothing
from seewhy.plan import Plan, Request, check_lengths, check_targets, choose_layers, choose_methods
from seewhy.recorder import LayerRow, LayerTable, Layout, Needs
from seewhy.targets import Subject

FIRST, LAST = (
    LayerRow("stem", "Conv2d", Layout("channels-first", (8, 8), 4), (2.0, 2.0), stage=1),
    LayerRow("body", "Block", Layout("channels-first", (4, 4), 6), (4.0, 4.0), stage=2, default=True),
)
TABLE = LayerTable((FIRST, LAST), {"head": (1, 10)})
ROOT = nn.Sequential()


def names(wanted: object) -> list[str]:
    return [row.name for row in choose_layers(wanted, TABLE, ROOT, None)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["body"]),
        ("last", ["body"]),
        (-2, ["stem"]),
        (["body", "stem"], ["body", "stem"]),
        (["last", "body", -1], ["body"]),
        ("all-stages", ["stem", "body"]),
        (("*od*", "last"), ["body"]),
    ],
)
def test_layers_come_in_the_callers_order_each_once(wanted: object, found: list[str]) -> None:
    assert names(wanted) == found


@pytest.mark.parametrize(("wanted", "told"), [([], "empty list"), ("bdy", "'body'"), (["body", "zzz"], "'zzz'")])
def test_layers_that_are_not_there_are_refused(wanted: object, told: str) -> None:
    with pytest.raises(LayerError, match=told):
        names(wanted)


@pytest.mark.parametrize(
    ("layout", "grid", "channels"),
    [
        ("channels-last", (4, 8), 8),
        ("channels-first", (8, 8), 4),
        ({"order": "channels-last", "grid": (4, 8), "channels": 8}, (4, 8), 8),
        (Layout("tokens-last", (8, 8), 4), (8, 8), 4),
    ],
)
def test_the_caller_may_say_how_a_layer_is_read(layout: object, grid: tuple[int, ...], channels: int) -> None:
    [row] = choose_layers("stem", TABLE, ROOT, layout)
    assert (row.layout.grid, row.layout.channels) == (grid, channels)


@pytest.mark.parametrize(
    ("layout", "told"),
    [("sideways", "'stem' of shape"), ({"order": "sideways"}, "channels-first, channels-last"), ({"rows": 3}, "takes")],
)
def test_a_reading_that_is_not_known_is_refused(layout: object, told: str) -> None:
    with pytest.raises(LayerError, match=told):
        choose_layers("stem", TABLE, ROOT, layout)


def test_one_methods_options_are_checked_against_it() -> None:
    [wanted] = choose_methods(["smooth_gradcam_pp"], {"samples": "3"})
    assert (wanted.method.name, wanted.options) == ("smooth-grad-cam++", {"samples": 3})


def test_several_methods_each_take_their_own_options() -> None:
    found = choose_methods(["grad-cam", "finer-cam", "smooth-grad-cam++"], {"strength": 0.2, "samples": 2})
    assert [wanted.options for wanted in found] == [{}, {"strength": 0.2}, {"samples": 2}]


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        (["grad-cam"], {"samples": 3}, "grad-cam has no option 'samples'. It has: none"),
        (["finer-cam"], {"strenght": 1.0}, "Nearest: 'strength'. It has: strength=0.6, references=3"),
        (["grad-cam", "finer-cam"], {"sample": 3}, "They have: references, strength"),
        (["grad-cam", "layer-cam"], {"samples": 3}, "They have no options"),
        ([], {}, "No method was given"),
    ],
)
def test_an_option_that_no_method_has_is_refused_with_those_that_exist(given, options, told) -> None:
    with pytest.raises(MethodError) as caught:
        choose_methods(given, options)
    assert told in str(caught.value)


def test_one_of_several_methods_may_be_left_out_but_not_the_only_one() -> None:
    assert [wanted.optional for wanted in choose_methods(["grad-cam", "cam"], {})] == [True, True]
    assert [wanted.optional for wanted in choose_methods(["cam"], {})] == [False]


def plan(*methods: str, targets: tuple = (None,)) -> Plan:
    return Plan(choose_methods(methods, {}), targets, ((LAST,),))


def test_a_plan_records_what_its_methods_need_and_each_layer_once() -> None:
    wanted = Plan(choose_methods(["grad-cam", "cam"], {}), (None,), ((FIRST, LAST), (LAST,)))
    assert wanted.needs == Needs.GRADIENTS | Needs.ACTIVATIONS | Needs.HEAD
    assert wanted.rows == (FIRST, LAST)


OUTPUTS = torch.tensor([[0.0, 1.0, 3.0], [5.0, 4.0, 1.0]])
SUBJECTS = [Subject(output) for output in OUTPUTS]


def test_each_question_comes_as_asked_and_as_each_method_changes_it() -> None:
    questions = plan("grad-cam", "finer-cam", targets=(1, "top:2")).questions(SUBJECTS, [0, 1])
    assert [[target.index for target in versions[0]] for versions in questions] == [[1, 1], [2, 0], [1, 1]]
    for asked, plain, contrast in questions:
        assert plain is asked
        others = [tuple(sorted({0, 1, 2} - {target.index})) for target in asked]
        assert [(each.index, tuple(sorted(each.others)), each.strength) for each in contrast] == [
            (target.index, rest, 0.6) for target, rest in zip(asked, others, strict=True)
        ]


@pytest.mark.parametrize("given", [[2, 0, 1, 0], (2, 0, 1, 0), torch.tensor([2, 0, 1, 0]), np.array([2, 0, 1, 0])])
@pytest.mark.parametrize(("numbers", "own"), [([1, 3], [0, 0]), ([0, 2], [2, 1]), (range(2, 4), [1, 0])])
def test_targets_given_one_an_image_go_to_their_own_images(given, numbers, own) -> None:
    # The numbers have a gap where a picture could not be read.
    [(question, _)] = plan("grad-cam", targets=(given,)).questions(SUBJECTS, numbers)
    assert [target.index for target in question] == own


@pytest.mark.parametrize("given", [[1, 2], torch.tensor([1, 2, 0, 0])])
def test_targets_and_images_are_counted(given: object) -> None:
    check_lengths([None, 3, "top:2", [0, 1, 2]], 3)
    with pytest.raises(TargetError, match=f"{len(given)} targets were given for 3 images"):
        check_lengths([given], 3)


@pytest.mark.parametrize(
    ("given", "found"), [((), (None,)), ("tiger", ("tiger",)), (3, (3,)), ([1, "top:2"], (1, "top:2")), (None, (None,))]
)
def test_one_or_several_targets(given: object, found: tuple) -> None:
    assert check_targets(given) == found


def test_a_method_that_cannot_ask_a_function_refuses_or_is_left_out() -> None:
    # A function has no class that could be compared with similar ones.
    def score(output: torch.Tensor) -> torch.Tensor:
        return output.sum()

    with pytest.raises(MethodError, match="finer-cam"):
        plan("finer-cam", targets=(score,)).questions(SUBJECTS, [0, 1])
    every = plan("all", targets=(score,))
    [versions] = every.questions(SUBJECTS, [0, 1])
    finer = [wanted.method.name for wanted in every.wanted].index("finer-cam")
    assert versions[1 + finer] is None
    assert list(every.skipped) == ["finer-cam"]
    assert all(version == versions[0] for number, version in enumerate(versions) if number != 1 + finer)


def test_a_request_becomes_a_plan_when_the_layers_are_known() -> None:
    wanted = choose_methods(["grad-cam"], {})
    both = Request(wanted, (1,), ["stem", "body"])
    assert both.plan(TABLE, ROOT).layers == ((FIRST, LAST),)
    assert Request(wanted, (1,), ["stem", "body"], apart=True).plan(TABLE, ROOT).layers == ((FIRST,), (LAST,))
    assert Request(wanted, (1,)).plan(TABLE, ROOT).layers == ((LAST,),)
    unlayered = Request(choose_methods(["occlusion"], {}), (1,))
    assert (both.is_layered, unlayered.is_layered) == (True, False)
    assert unlayered.plan(None, ROOT).layers == ((),)


def test_methods_that_fuse_layers_have_their_own_and_the_default_one_is_not_recorded_for_them_alone() -> None:
    fusing = next(entry for entry in methods() if entry.fuse is not None)
    alone = Request(choose_methods([fusing.name], {}), (1,), "all-stages").plan(TABLE, ROOT)
    assert alone.rows == (FIRST, LAST)
    assert alone.groups(alone.wanted[0]) == ((FIRST, LAST),)
    beside = Request(choose_methods([fusing.name, "grad-cam"], {}), (1,), ["stem"], apart=True).plan(TABLE, ROOT)
    assert [beside.groups(each) for each in beside.wanted] == [((FIRST,),), ((FIRST,),)]


@pytest.mark.parametrize("kind", ["boxes", "places", "classes"])
def test_a_method_that_nobody_named_suits_what_the_model_answers(kind: str) -> None:
    table = LayerTable(TABLE.rows, {}, kind=kind)
    wanted = choose_methods(["grad-cam"], {}, as_smoothing("eigen"))
    for is_usual in (True, False):
        [found] = Request(wanted, (1,), is_usual=is_usual).plan(table, ROOT).wanted
        assert found.method.name == ("hires-cam" if is_usual and kind != "classes" else "grad-cam")
        assert found.smooth == wanted[0].smooth


@pytest.mark.parametrize(
    ("given", "meant"), [("target", "targets"), ("method", "methods"), ("layer", "layers"), ("methods", "method")]
)
def test_an_option_that_is_an_argument_of_the_call_is_told(given: str, meant: str) -> None:
    for names in (["grad-cam"], ["grad-cam", "rise"]):
        with pytest.raises(MethodError, match=rf"'{given}'\. Did you mean {meant}=\?"):
            choose_methods(names, {given: 1})
