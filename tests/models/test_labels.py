import json
import os

import pytest

from seewhy.errors import ModelError, TargetError
from seewhy.models import Labels, as_labels, labels

PETS = Labels(("tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "great white shark, white shark", "crane"))


@pytest.fixture(scope="module")
def imagenet():
    return as_labels("ImageNet")


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("tench", 0),
        ("tabby", 281),
        ("Tabby Cat", 281),
        ("  egyptian cat ", 285),
        ("tabby, tabby cat", 281),
        ("Carcharodon carcharias", 2),
        ("toilet tissue", 999),
        ("hammerh", 4),
    ],
)
def test_an_imagenet_class_answers_to_each_of_its_names_and_to_a_clear_beginning(wanted, index, imagenet):
    assert imagenet.find(wanted) == index


def test_imagenet_is_in_torchvisions_order(imagenet):
    from torchvision.models import ResNet18_Weights

    theirs = ResNet18_Weights.DEFAULT.meta["categories"]
    ours = [imagenet.name(index) for index in range(len(imagenet))]
    # torchvision tells three pairs of one name apart in its own words, and shortens a few.
    assert sum(a.casefold() == b.casefold() for a, b in zip(ours, theirs, strict=True)) > 950


def test_a_whole_name_wins_over_a_longer_one():
    assert Labels(("tiger cat", "tiger")).find("tiger") == 1
    assert PETS.find("white shark") == 4


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("t", "may mean 2 classes: 0 'tabby', 1 'tiger cat'. Give one name in full"),
        ("crane", "may mean 2 classes: 3 'crane', 5 'crane'"),
        ("", "may mean 6 classes: 0 'tabby'.* 5 'crane'"),
        ("tabbi", "No class is called 'tabbi' among 6. Nearest: 'tabby'"),
        ("zzz", "No class is called 'zzz' among 6. An index works too"),
    ],
)
def test_a_name_of_several_classes_or_none_is_told_with_the_nearest(wanted, told):
    with pytest.raises(TargetError, match=told):
        PETS.find(wanted)


def test_a_class_has_its_first_name_or_its_number():
    assert [PETS.name(index) for index in (0, 4, 6, -1)] == ["tabby", "great white shark", "class 6", "class -1"]
    assert Labels(("cat", "", "dog")).name(1) == "class 1"


FILES = {
    "text": ("a.txt", "cat\ndog\nowl\n"),
    "text from Windows": ("a.txt", "\ufeffcat\r\ndog\r\nowl\r\n\r\n"),
    "text without an end": ("names", " cat\ndog \nowl"),
    "list": ("a.json", '["cat", "dog", "owl"]'),
    "list with a mark": ("a.JSON", '\ufeff["cat", "dog", "owl"]'),
    "index to name, unsorted": ("a.json", '{"2": "owl", "0": "cat", "1": "dog"}'),
    "name to index": ("a.json", '{"owl": 2, "cat": 0, "dog": 1}'),
    "Hugging Face": ("config.json", '{"x": 1, "id2label": {"0": "cat", "1": "dog", "2": "owl"}}'),
    "Hugging Face as a list": ("config.json", '{"id2label": ["cat", "dog", "owl"]}'),
    "Keras": ("a.json", '{"0": ["n02121808", "cat"], "1": ["n02084071", "dog"], "2": ["n01621127", "owl"]}'),
}


@pytest.mark.parametrize(("name", "text"), FILES.values(), ids=FILES)
def test_a_label_file_is_read_in_every_usual_shape(name, text, tmp_path):
    (tmp_path / name).write_bytes(text.encode())
    assert as_labels(tmp_path / name) == as_labels(str(tmp_path / name)) == Labels(("cat", "dog", "owl"))


def test_labels_may_be_given_as_they_are():
    expected = Labels(("cat", "dog"))
    for given in (expected, ["cat", "dog"], ("cat", "dog"), {1: "dog", 0: "cat"}, {"dog": 1, "cat": 0}):
        assert as_labels(given) == expected


@pytest.mark.parametrize(("name", "text"), [("a.txt", "cat\n\nowl\n"), ("a.json", '["cat", "", "owl"]')])
def test_a_class_without_a_name_does_not_shift_the_others(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    labels = as_labels(tmp_path / name)
    assert (labels.find("owl"), labels.name(1)) == (2, "class 1")


@pytest.mark.parametrize(
    "mapping",
    [{0: "cat", 2: "owl"}, {1: "cat", 2: "dog"}, {"cat": 0, "dog": 0}, {"0": "a", "00": "b"}, {-1: "x", 0: "y"}],
)
def test_a_mapping_that_leaves_out_or_repeats_a_class_is_refused(mapping):
    with pytest.raises(ModelError, match="must number its 2 classes from 0 to 1, each once"):
        as_labels(mapping)


BROKEN = {
    "a picture": ("a.txt", b"\x89PNG\r\n\x1a\n\xff\xfe", "must be UTF-8"),
    "half of JSON": ("a.json", b'{"0": "cat"', "cannot be read"),
    "a number": ("a.json", b"5", "holds a int"),
    "words for words": ("a.json", b'{"cat": "dog"}', "{index: name} or {name: index}"),
    "infinity": ("a.json", b'{"cat": Infinity}', "{index: name} or {name: index}"),
    "a number of many digits": ("a.json", b"[" + b"9" * 10_000 + b"]", "cannot be read"),
    "nested without end": ("a.json", b"[" * 200_000, "cannot be read"),
}


@pytest.mark.parametrize(("name", "data", "told"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_holds_no_labels_is_told(name, data, told, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=told):
        as_labels(tmp_path / name)


def test_a_label_file_larger_than_any_is_not_read(tmp_path):
    path = tmp_path / "huge.txt"
    path.touch()
    os.truncate(path, 20_000_001)  # sparse: takes no disk
    with pytest.raises(ModelError, match="over 20,000,000 bytes"):
        as_labels(path)


@pytest.mark.parametrize("path", ["nowhere.txt", "x" * 5000, "/dev/zero", "."])
def test_a_label_file_that_is_not_there_is_told(path):
    with pytest.raises(ModelError, match="no label file"):
        as_labels(path)


def test_a_thing_that_names_nothing_is_told_by_its_type(unchecked):
    with pytest.raises(ModelError, match="not a int"):
        as_labels(5)


def test_names_are_only_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["__import__('os').mkdir('x')", "{0.__class__}", "%s"]))
    assert as_labels(path).name(1) == "{0.__class__}"
    assert as_labels(path).find("%s") == 2


@pytest.mark.parametrize(
    ("word", "first"), [("dog", "African hunting dog"), ("cat", "tabby"), ("bird", "indigo bunting")]
)
def test_a_word_of_many_names_is_never_taken_for_one_that_only_begins_like_it(word: str, first: str) -> None:
    """ "dog" is not dogsled, "bird" not birdhouse: the classes that have the word are told first."""
    with pytest.raises(TargetError, match=rf"'{word}'.*'{first}'"):
        labels.imagenet().find(word)


def test_an_exact_name_is_found_whatever_words_it_has() -> None:
    named = Labels(("malignant vs benign", "probability", "9"))
    assert [named.exactly(name) for name in ("Malignant VS benign", "probability", "9", "benign")] == [0, 1, 2, None]
