import itertools

import pytest

from oneflow_jax.data import document, sentences

KINDS = {
    "tiger": "animal",
    "owl": "animal",
    "cat": "animal",
    "black cat": "animal",
    "fork and knife": "food",
    "fork": "food",
    "knife": "food",
    "grapes": "food",
}
TEMPLATES = sentences.CAPTION_TEMPLATES + sentences.INTERLEAVED_TEMPLATES


def render_document(template, names, kind):
    parts = sentences.render(template, names, kind)
    return document.Document(
        tuple(
            document.Text(part) if isinstance(part, str) else document.Gap("image")
            for part in parts
        )
    ), tuple(names[part] for part in parts if isinstance(part, int))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fox", "a fox"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("grapes", "grapes"),
        ("octopus", "an octopus"),
        ("wine glass", "a wine glass"),
        ("rhinoceros", "a rhinoceros"),
        ("broccoli", "broccoli"),
        ("ice cream", "an ice cream"),
        ("umbrella", "an umbrella"),
    ],
)
def test_articles(name, expected):
    assert sentences.noun_phrase(name) == expected


@pytest.mark.parametrize("template", TEMPLATES)
def test_rendered_sentences_are_parsed(template):
    for kind in ("animal", "food"):
        names = [name for name in KINDS if KINDS[name] == kind]
        for chosen in itertools.permutations(names, sentences.num_names(template)):
            composed, image_names = render_document(template, chosen, kind)
            assert sentences.expected_names(composed, KINDS) == image_names


@pytest.mark.parametrize("template", sentences.INTERLEAVED_TEMPLATES)
def test_stated_counts_are_the_counts(template):
    stated = {"two": 2, "three": 3, "four": 4}.get(template.split()[0])
    num_images = len(sentences._IMAGE_FIELD.findall(template))
    assert 2 <= num_images <= 4
    assert stated in (None, num_images)


def test_composed_text_has_no_stray_spaces():
    parts = sentences.render("[0] [1] on the left {0}, on the right {1}", ["owl", "cat"], "animal")
    assert parts == (0, 1, "on the left an owl, on the right a cat")


@pytest.mark.parametrize(
    "parts",
    [
        ("two foods: a tiger", 0, "and an owl", 1),  # the kind is wrong
        ("two animals: a tiger", 0, "and a fork", 1),  # the kind of one name is wrong
        ("three animals: a tiger", 0, "and an owl", 1),  # the count is wrong
        ("two animals: a tiger", 0, "and an owl"),  # an image is missing
        ("a tiger", 0, "and a tiger", 1),  # the same name twice
        ("a tiger", 0, ", then an owl", 1, ", then a cat again", 0),  # 'again' after a new name
        ("first a tiger", 0, ", then a owl", 1),  # grammar
        ("a tiger", 0, 0),
        (0,),
    ],
)
def test_near_misses_are_rejected(parts):
    near = document.Document(
        tuple(
            document.Text(part) if isinstance(part, str) else document.Gap("image")
            for part in parts
        )
    )
    assert sentences.expected_names(near, KINDS) is None


@pytest.mark.parametrize("template", TEMPLATES)
def test_text_alone_identifies_its_template(template):
    for kind in ("animal", "food"):
        names = [name for name in KINDS if KINDS[name] == kind]
        for chosen in itertools.permutations(names, sentences.num_names(template)):
            composed, _ = render_document(template, chosen, kind)
            matched = sentences.match_template(composed.text(), KINDS)
            same, _ = render_document(matched, chosen, kind)
            assert same.text() == composed.text()
            # Check the text as a person would write it, without a space where an image was.
            assert sentences.match_template(composed.text().replace(" ,", ","), KINDS) == matched


def test_templates_are_distinct_unless_their_texts_are_equal():
    names = ["tiger", "owl", "cat", "black cat"]
    words = [render_document(template, names, "animal")[0].text() for template in TEMPLATES]
    templates = [sentences.match_template(one, KINDS) for one in words]
    assert len(set(templates)) == len(set(words)) == len(TEMPLATES) - 1
    assert sentences.match_template("a tiger", KINDS) == "{0} [0]"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "an owl an owl",
        "two foods: a tiger and an owl",  # the kind is wrong
        "two animals: a tiger and a fork",  # the kind of one name is wrong
        "three animals: a tiger and an owl",  # the count is wrong
        "a tiger and a tiger",  # the same name twice
        "a tiger , then an owl , then a cat again",  # 'again' after a new name
        "first a tiger , then a owl",  # grammar
        "a tiger and a bear",  # the name does not exist
        "a tiger ,, an owl and a cat",
        "a tiger <image>",
    ],
)
def test_near_matches_have_no_template(words):
    assert sentences.match_template(words, KINDS) is None


@pytest.mark.parametrize("template", sentences.CAPTION_TEMPLATES)
def test_parse_name_reads_every_caption(template):
    for name, kind in KINDS.items():
        composed, _ = render_document(template, [name], kind)
        assert sentences.parse_name(composed.text(), KINDS) == name


@pytest.mark.parametrize(
    "caption",
    ["a owl", "a picture of an owl: a tiger", "owl", "an owl ", "", "a picture of a bear:"],
)
def test_parse_name_is_exact(caption):
    assert sentences.parse_name(caption, KINDS) is None


def test_names_are_found_in_their_order():
    names = ("apple", "red apple", "fox", "owl")
    words = "first a red apple , then an owl then a fox again and an apple"
    assert sentences.extract_names(words, names) == ["red apple", "owl", "fox", "apple"]
    assert sentences.extract_names("a foxglove and the owl in the sea fox", names) == []


def test_names_that_end_with_a_sign_are_found():
    names = ("a button (blood type)", "on! arrow", "keycap #")
    words = " and ".join(map(sentences.noun_phrase, names))
    assert sentences.extract_names(f"{words}:", names) == list(names)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("two animals: a fox", 2),
        ("four foods: first", 4),
        ("a fox and two owls: x", None),
        ("", None),
    ],
)
def test_stated_counts_are_parsed(words, count):
    assert sentences.parse_count(words) == count
