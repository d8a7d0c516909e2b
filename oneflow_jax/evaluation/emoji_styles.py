"""Evaluation suite of the data set `emoji_styles`: the tasks of `label_tasks`, and composition.

    styled_name          fraction of the images generated for a name and a style that show the
                         name; training has images of each (name, style) pair
    styled_style         fraction of these images that are in the style
    styled               fraction of these images that show the name in the style
    composition_name     as `styled_name`, but for held-out pairs: training has images of the name
                         and images of the style, but no image of the pair to copy
    composition_style    as `styled_style`, but for held-out pairs
    composition          as `styled`, but for held-out pairs

The classifier decides that an image shows the name and style of the nearest drawing
(`nearest_image`). It also knows the drawings of held-out pairs, so that it can recognize a
composition. The reference metrics measure how reliable the classifier is:

    reference_composition        fraction of real drawings of held-out pairs that the classifier
                                 labels correctly after a random shift, blur and noise
    reference_composition_name   fraction of these drawings whose name is right
    reference_composition_style  fraction of these drawings whose style is right
    reference_num_images_1       see `emoji`; also _2, _3 and _4
"""

from collections.abc import Mapping, Sequence

from oneflow_jax.data.document import Document
from oneflow_jax.data.labels import LabeledImage
from oneflow_jax.data.style_drawings import Drawing
from oneflow_jax.evaluation import base, image_name_judge, interleaved, label_tasks


def make_suite(
    drawings: Sequence[Drawing],
    classifier: interleaved.ImageClassifier,
    train_documents: Sequence[Document],
    num_samples: int,
    *,
    seed: int = 0,
) -> base.EvalSuite:
    """Make the suite: tasks of `num_samples` documents each.

    Args:
        drawings: all drawings of the data set, including those that are held out.
        classifier: function that labels what images show.
        train_documents: training documents, for the reference metrics.
        num_samples: number of documents per task.
        seed: RNG seed of the augmented copies for the reference metrics.
    """
    train = [drawing for drawing in drawings if drawing.in_training]
    pairs = [drawing for drawing in drawings if drawing.pair_held_out]
    asked = label_tasks.spread_evenly(train, num_samples)
    tasks = label_tasks.make_tasks(asked, drawings, classifier)
    tasks.append(
        label_tasks.make_image_task("styled", [drawing.label for drawing in asked], classifier)
    )
    if pairs:
        wanted = [drawing.label for drawing in label_tasks.spread_evenly(pairs, num_samples)]
        tasks.append(label_tasks.make_image_task("composition", wanted, classifier))

    def measure_reference() -> Mapping[str, float]:
        counts = label_tasks.image_count_fractions("reference", train_documents)
        accuracy = measure_classifier("reference_composition", classifier, pairs, seed)
        return accuracy | counts

    return base.EvalSuite(tuple(tasks), measure_reference)


def measure_classifier(
    metric: str,
    classifier: interleaved.ImageClassifier,
    drawings: Sequence[LabeledImage],
    seed: int = 0,
) -> dict[str, float]:
    """Measure how often a classifier is right about new augmented copies, one of each drawing.

    Returns:
        The fractions of right labels, names and styles, as the metrics `<metric>`, `<metric>_name`
        and `<metric>_style`; {} without drawings.
    """
    if not drawings:
        return {}
    asked = [drawing.label for drawing in drawings]
    shown = image_name_judge.classify_copies(classifier, drawings, seed)
    outcomes = label_tasks.compare_labels(metric, asked, shown)
    return {name: base.fraction(each) for name, each in outcomes.items()}
