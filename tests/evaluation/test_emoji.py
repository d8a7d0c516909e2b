import numpy as np
import pytest

from oneflow_jax.data import emoji as data
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import emoji


@pytest.fixture(scope="module")
def concepts():
    return data.Settings().drawn()


@pytest.fixture(scope="module")
def known(concepts):
    return {concept.name: concept.pixels for concept in concepts if not concept.held_out}


@pytest.fixture(scope="module")
def tasks(concepts):
    suite = emoji.suite(concepts, (), (), samples=80, grows=True)
    return {task.name: task for task in suite.tasks}


@pytest.fixture(scope="module")
def vectors(known):
    return {name: emoji.features(pixels) for name, pixels in known.items()}


def shown(name, known):
    return Document((Text(f"a picture of {sentences.phrase(name)}:"), Image(known[name])))


def test_every_emoji_is_nearest_to_itself(known, vectors):
    assert len(known) == 64
    assert [emoji.nearest(pixels, vectors) for pixels in known.values()] == list(known)


def test_nearest_forgives_noise_and_a_small_shift(known, vectors):
    rng = np.random.default_rng(0)
    for name, pixels in known.items():
        noisy = np.clip(pixels + rng.normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)
        assert emoji.nearest(noisy, vectors) == name
    shifted = [emoji.nearest(np.roll(pixels, 1, axis=1), vectors) for pixels in known.values()]
    assert np.mean([found == name for found, name in zip(shifted, known, strict=True)]) >= 0.95


def test_another_picture_is_nearest_to_another(known, vectors):
    tiger = emoji.nearest(known["tiger"], vectors)
    assert tiger == "tiger"
    assert emoji.nearest(np.full_like(known["tiger"], 255), vectors) != "tiger"


def test_prompts(tasks, known):
    assert {len(task.prompts) for task in tasks.values()} == {80}
    assert all(isinstance(d.parts[1], Gap) for d in tasks["text_to_image"].prompts)
    assert all(isinstance(d.parts[0], Image) for d in tasks["image_to_text"].prompts)
    assert all(isinstance(part, Gap) for d in tasks["joint"].prompts for part in d.parts)
    # Every concept is asked for before any comes again, and none that is held out.
    words = [document.words() for document in tasks["text_to_image"].prompts]
    assert words[:64] == [f"a picture of {sentences.phrase(name)}:" for name in known]
    assert words[64:] == words[:16]


def test_text_to_image(tasks, known):
    names = [*known][:64] + [*known][:16]
    task = tasks["text_to_image"]
    right = [shown(name, known) for name in names]
    assert task.score(right).figures == {"text_to_image": 1.0}
    wrong = [shown(name, known) for name in names[1:] + names[:1]]
    assert task.score(wrong).figures == {"text_to_image": 0.0}
    mixed = task.score(right[:60] + wrong[60:])
    assert mixed.figures == {"text_to_image": 0.75}
    assert [cell[2] for cell in mixed.cells] == ["right"] * 60 + ["wrong"] * 4


def test_image_to_text(tasks, known):
    names = [*known][:64] + [*known][:16]
    task = tasks["image_to_text"]

    def answered(words):
        return [
            Document((Image(known[name]), Text(text)))
            for name, text in zip(names, words, strict=True)
        ]

    right = [sentences.phrase(name) for name in names]
    assert task.score(answered(right)).figures == {"image_to_text": 1.0}
    assert task.score(answered([f"this is {name}" for name in right])).figures == {
        "image_to_text": 1.0
    }
    wrong = right[1:] + right[:1]
    assert task.score(answered(wrong)).figures == {"image_to_text": 0.0}
    # A name with anything beside it is not exactly the name.
    assert task.score(answered([f"{name} a" for name in right])).figures == {"image_to_text": 0.0}
    assert task.score(answered(right[:20] + wrong[20:])).figures == {"image_to_text": 0.25}


def test_joint(tasks, known):
    fox, tiger = shown("fox", known), shown("tiger", known)
    crossed = Document((fox.parts[0], tiger.parts[1]))
    babble = Document((Text("fox fox tiger"), fox.parts[1]))
    score = tasks["joint"].score([fox, tiger, crossed, babble])
    assert score.figures["joint"] == 0.5
    assert score.figures["joint_valid"] == 0.75
    assert [cell[2] for cell in score.cells] == ["right", "right", "wrong", "wrong"]


def test_only_models_that_grow_are_asked_for_whole_documents(concepts, tasks):
    fixed = {task.name for task in emoji.suite(concepts, (), (), samples=3, grows=False).tasks}
    assert set(tasks) - fixed == {"document"}
    assert [part.kind for part in tasks["document"].prompts[0].parts] == ["document"]
    assert tasks["document"].births
    assert not tasks["joint"].births


def test_documents_are_right_where_pictures_are_what_the_words_say(concepts, known, tasks):
    animals = [c.name for c in concepts if c.kind == "animal" and not c.held_out][:3]
    first, second, third = animals

    def pair(one, other, names=animals):
        words = [Text(f"first {sentences.phrase(names[0])}"), Image(known[one])]
        words += [Text(f", then {sentences.phrase(names[1])}"), Image(known[other])]
        return Document(tuple(words))

    score = tasks["document"].score
    whole = score([pair(first, second)]).figures
    assert (whole["document"], whole["document_places"], whole["document_valid"]) == (1, 1, 1)
    half = score([pair(first, third)])
    assert half.figures["document"] == half.figures["document_places"] == 0.5
    assert [cell[2] for cell in half.cells] == ["right", "wrong"]
    # Not a form of the data, so that nothing in it is right; but the picture is what is named.
    babble = Document((Text(f"then then {sentences.phrase(first)}"), Image(known[first])))
    found = score([babble]).figures
    assert (found["document"], found["document_places"], found["document_valid"]) == (0, 1, 0)
    assert score([Document((Image(known[first]),))]).figures["document_places"] == 0
    assert score([Document(())]).figures["document_valid"] == 0


def test_documents_are_counted_and_their_variety_is_told(known, tasks):
    names = list(known)[:3]
    one = shown(names[0], known)
    three = Document(tuple(part for name in names for part in shown(name, known).parts))
    figures = tasks["document"].score([one, one, one, three]).figures
    assert [figures[f"document_{n}"] for n in range(1, 5)] == [0.75, 0, 0.25, 0]
    alike = tasks["document"].score([one] * 4).figures["document_variety"]
    assert alike == pytest.approx(1 / len(known))
    assert figures["document_variety"] == pytest.approx(
        np.exp(-(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(1 / 6))) / len(known)
    )


def test_a_promise_of_how_many_is_kept_or_not(known, tasks):
    name = next(iter(known))
    promise = (Text("two animals: a fox"), Image(known[name]), Text("and"), Image(known[name]))
    score = tasks["document"].score
    assert score([Document(promise)]).figures["document_counted"] == 1
    assert score([Document(promise[:2]), Document(promise)]).figures["document_counted"] == 0.5


def test_the_data_s_own_numbers_of_pictures_are_told(concepts, known):
    one = shown(next(iter(known)), known)
    two = Document(one.parts * 2)
    suite = emoji.suite(concepts, (one, two), (), samples=3, grows=True)
    assert [suite.constants[f"data_{n}"] for n in range(1, 5)] == [0.5, 0.5, 0, 0]


def test_documents_to_revise_are_those_that_training_never_shows(concepts, known):
    one = shown(next(iter(known)), known)
    suite = emoji.suite(concepts, (), (one,) * 5, samples=3, grows=False)
    (task,) = [task for task in suite.tasks if task.name == "revise"]
    assert task.revises
    assert len(task.prompts) == 3
    assert task.score([one] * 3).figures["revise_document"] == 1
    assert task.score(task.prompts).figures["revise_document"] == 0
