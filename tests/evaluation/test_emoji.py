import numpy as np
import pytest

from oneflow_jax.data import emoji as data
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import emoji, nearest_image


@pytest.fixture(scope="module")
def concepts():
    return data.Settings().load_concepts()


@pytest.fixture(scope="module")
def images(concepts):
    return {concept.name: concept.pixels for concept in concepts if not concept.held_out}


@pytest.fixture(scope="module")
def tasks(concepts):
    suite = emoji.make_suite(concepts, (), (), num_samples=80)
    return {task.name: task for task in suite.tasks}


@pytest.fixture(scope="module")
def nearest(concepts):
    seen = [concept for concept in concepts if not concept.held_out]
    return nearest_image.NearestImage.from_images(seen)


def make_document(name, images):
    return Document((Text(f"a picture of {sentences.noun_phrase(name)}:"), Image(images[name])))


def test_every_emoji_is_nearest_to_itself(images, nearest):
    assert len(images) == 64
    assert nearest([*images.values()]) == list(images)


def test_nearest_neighbor_is_robust_to_noise_and_a_small_shift(images, nearest):
    rng = np.random.default_rng(0)
    for name, pixels in images.items():
        noisy = np.clip(pixels + rng.normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)
        assert nearest([noisy]) == [name]
    shifted = nearest([np.roll(pixels, 1, axis=1) for pixels in images.values()])
    assert np.mean([a == name for a, name in zip(shifted, images, strict=True)]) >= 0.95


def test_nearest_neighbor_depends_on_the_image(images, nearest):
    tiger, white = nearest([images["tiger"], np.full_like(images["tiger"], 255)])
    assert tiger == "tiger" != white


def test_prompts(tasks, images):
    assert {len(task.prompts) for task in tasks.values()} == {80}
    assert all(isinstance(d.parts[1], Gap) for d in tasks["text_to_image"].prompts)
    assert all(isinstance(d.parts[0], Image) for d in tasks["image_to_text"].prompts)
    assert all(isinstance(part, Gap) for d in tasks["joint"].prompts for part in d.parts)
    # Every training concept is used once before any is repeated; held-out concepts are not used.
    words = [document.text() for document in tasks["text_to_image"].prompts]
    assert words[:64] == [f"a picture of {sentences.noun_phrase(name)}:" for name in images]
    assert words[64:] == words[:16]


def test_text_to_image(tasks, images):
    names = [*images][:64] + [*images][:16]
    task = tasks["text_to_image"]
    right = [make_document(name, images) for name in names]
    assert task.score(right).metrics == {"text_to_image": 1.0}
    wrong = [make_document(name, images) for name in names[1:] + names[:1]]
    assert task.score(wrong).metrics == {"text_to_image": 0.0}
    mixed = task.score(right[:60] + wrong[60:])
    assert mixed.metrics == {"text_to_image": 0.75}
    assert [cell[2] for cell in mixed.gallery] == ["right"] * 60 + ["wrong"] * 4


def test_image_to_text(tasks, images):
    names = [*images][:64] + [*images][:16]
    task = tasks["image_to_text"]

    def make_answers(words):
        return [
            Document((Image(images[name]), Text(text)))
            for name, text in zip(names, words, strict=True)
        ]

    right = [sentences.noun_phrase(name) for name in names]
    assert task.score(make_answers(right)).metrics == {"image_to_text": 1.0}
    assert task.score(make_answers([f"this is {name}" for name in right])).metrics == {
        "image_to_text": 1.0
    }
    wrong = right[1:] + right[:1]
    assert task.score(make_answers(wrong)).metrics == {"image_to_text": 0.0}
    # A name with extra words is not an exact match.
    assert task.score(make_answers([f"{name} a" for name in right])).metrics == {
        "image_to_text": 0.0
    }
    assert task.score(make_answers(right[:20] + wrong[20:])).metrics == {"image_to_text": 0.25}


def test_joint(tasks, images):
    fox, tiger = make_document("fox", images), make_document("tiger", images)
    crossed = Document((fox.parts[0], tiger.parts[1]))
    babble = Document((Text("fox fox tiger"), fox.parts[1]))
    score = tasks["joint"].score([fox, tiger, crossed, babble])
    assert score.metrics["joint"] == 0.5
    assert score.metrics["joint_template_validity"] == 0.75
    assert [cell[2] for cell in score.gallery] == ["right", "right", "wrong", "wrong"]


def test_the_model_chooses_the_parts_of_the_document_task(tasks):
    assert [part.kind for part in tasks["document"].prompts[0].parts] == ["document"]
    assert tasks["document"].may_insert_images
    assert not tasks["joint"].may_insert_images


def test_document_is_accurate_if_images_match_the_text(concepts, images, tasks):
    animals = [c.name for c in concepts if c.kind == "animal" and not c.held_out][:3]
    first, second, third = animals

    def pair(first_name, second_name, names=animals):
        words = [Text(f"first {sentences.noun_phrase(names[0])}"), Image(images[first_name])]
        words += [Text(f", then {sentences.noun_phrase(names[1])}"), Image(images[second_name])]
        return Document(tuple(words))

    score = tasks["document"].score
    whole = score([pair(first, second)]).metrics
    assert (
        whole["document_accuracy"],
        whole["document_alignment"],
        whole["document_template_validity"],
    ) == (1, 1, 1)
    half = score([pair(first, third)])
    assert half.metrics["document_accuracy"] == half.metrics["document_alignment"] == 0.5
    assert [cell[2] for cell in half.gallery] == ["right", "wrong"]
    # The text matches no template, so no image is accurate; but the image shows the named emoji.
    babble = Document((Text(f"then then {sentences.noun_phrase(first)}"), Image(images[first])))
    metric_values = score([babble]).metrics
    assert (
        metric_values["document_accuracy"],
        metric_values["document_alignment"],
        metric_values["document_template_validity"],
    ) == (0, 1, 0)
    assert score([Document((Image(images[first]),))]).metrics["document_alignment"] == 0
    assert score([Document(())]).metrics["document_template_validity"] == 0


def test_document_metrics_count_images_and_diversity(images, tasks):
    names = list(images)[:3]
    one = make_document(names[0], images)
    three = Document(tuple(part for name in names for part in make_document(name, images).parts))
    figures = tasks["document"].score([one, one, one, three]).metrics
    assert [figures[f"document_num_images_{n}"] for n in range(1, 5)] == [0.75, 0, 0.25, 0]
    alike = tasks["document"].score([one] * 4).metrics["document_diversity"]
    assert alike == pytest.approx(1 / len(images))
    assert figures["document_diversity"] == pytest.approx(
        np.exp(-(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(1 / 6))) / len(images)
    )


def test_document_count_accuracy_compares_stated_and_actual_counts(images, tasks):
    name = next(iter(images))
    promise = (Text("two animals: a fox"), Image(images[name]), Text("and"), Image(images[name]))
    score = tasks["document"].score
    assert score([Document(promise)]).metrics["document_count_accuracy"] == 1
    assert (
        score([Document(promise[:2]), Document(promise)]).metrics["document_count_accuracy"] == 0.5
    )


def test_reference_image_counts_are_reported(concepts, images):
    one = make_document(next(iter(images)), images)
    two = Document(one.parts * 2)
    suite = emoji.make_suite(concepts, (one, two), (), num_samples=3)
    assert [suite.measure_reference()[f"reference_num_images_{n}"] for n in range(1, 5)] == [
        0.5,
        0.5,
        0,
        0,
    ]


def test_edit_task_uses_documents_not_in_training(concepts, images):
    one = make_document(next(iter(images)), images)
    suite = emoji.make_suite(concepts, (), (one,) * 5, num_samples=3)
    (task,) = [task for task in suite.tasks if task.name == "edit"]
    assert task.is_editing
    assert len(task.prompts) == 3
    assert task.score([one] * 3).metrics["edit_exact_match"] == 1
    assert task.score(task.prompts).metrics["edit_exact_match"] == 0
