"""Metrics of the comparison: descriptions, directions, formats, and marks of the best models."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

from oneflow_jax.compare.results import Estimate

Mark = Literal["best", "tied", ""]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal_formatter(num_decimals: int) -> Callable[[float], str]:
    """Return a formatter with `num_decimals` decimals; it writes -0 as 0."""

    def written(value: float) -> str:
        text = f"{value:,.{num_decimals}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")

    return written


format_fraction = decimal_formatter(3)
"""Formats a fraction with three decimals."""


def format_significant(value: float) -> str:
    """Format a number with three significant digits: 0.0123, 1.20, 1,230."""
    if not value:
        return "0"
    rounded = float(f"{value:.2e}")
    return decimal_formatter(max(0, 2 - math.floor(math.log10(abs(rounded)))))(rounded)


def format_count(value: float) -> str:
    """Format a count without decimals, or a mean of counts with one decimal."""
    return decimal_formatter(0 if value == round(value) else 1)(value)


def format_scientific(value: float) -> str:
    """Format a large number as 1.20 · 10¹⁵."""
    factor, exponent = f"{value:.2e}".split("e")
    return f"{factor} · 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


@dataclasses.dataclass(frozen=True)
class MetricInfo:
    """A metric; `direction` is ↑ if higher is better, ↓ if lower is better, "" if neither."""

    name: str
    title: str
    direction: Literal["↑", "↓", ""]
    description: str
    format_value: Callable[[float], str] = format_fraction

    def heading(self, suffix: str = "") -> str:
        """Return title, suffix and arrow; a no-break space keeps the arrow on the title's line."""
        return "\u00a0".join(filter(None, (self.title + suffix, self.direction)))

    def format_range(self, low: float, high: float) -> str:
        """Format a range; return a single number if both ends have the same text."""
        return "–".join(dict.fromkeys((self.format_value(low), self.format_value(high))))

    def format_interval(self, estimate: Estimate) -> str:
        """Format the 95 % interval of an estimate; return "" for an exact value."""
        if estimate.exact:
            return ""
        return f"{self.format_value(estimate.low)}–{self.format_value(estimate.high)}"


METRICS = (
    MetricInfo(
        "nfe",
        "Forward passes",
        "↓",
        "number of function evaluations (NFE) of the network for one document, at batch size 1; "
        "mean over documents",
        format_count,
    ),
    MetricInfo(
        "seconds_per_document",
        "Seconds per document",
        "↓",
        "time to generate one document, at batch size 1",
        format_significant,
    ),
    MetricInfo(
        "seconds_per_document_8",
        "Seconds per document, batch 8",
        "↓",
        "time to generate 8 documents in one batch, divided by 8",
        format_significant,
    ),
    MetricInfo(
        "kid_efficientnet",
        "KID",
        "↓",
        "kernel distance between images generated for captions and real ones, on "
        "EfficientNet-Lite0 features; about 0 for real images, and slightly negative by chance",
        decimal_formatter(4),
    ),
    MetricInfo(
        "fd_efficientnet",
        "FD",
        "↓",
        "Fréchet distance between images generated for captions and real ones, on "
        "EfficientNet-Lite0 features; biased upward for few images, and not comparable with FID",
        format_significant,
    ),
    MetricInfo(
        "precision", "Precision", "↑", "fraction of generated images that are similar to real ones"
    ),
    MetricInfo(
        "recall", "Recall", "↑", "fraction of real images that are similar to generated ones"
    ),
    MetricInfo(
        "template_validity",
        "Valid text",
        "↑",
        "fraction of documents whose text, without the images, matches a template of the data "
        "exactly",
    ),
    MetricInfo(
        "interleaved_score",
        "Interleaved quality",
        "↑",
        "agreement of text and images in documents generated without a prompt: the geometric mean "
        "of the following five metrics",
    ),
    MetricInfo(
        "image_name_alignment",
        "– image-name alignment",
        "↑",
        "fraction of images that show the name mentioned at their place in the order",
    ),
    MetricInfo(
        "count_accuracy",
        "– count accuracy",
        "↑",
        "among documents that state a number, the fraction with that number of names and images",
    ),
    MetricInfo(
        "order_accuracy",
        "– order accuracy",
        "↑",
        "among documents with several images or names, the fraction whose images show the names "
        "one by one",
    ),
    MetricInfo(
        "category_consistency",
        "– category consistency",
        "↑",
        "among documents with a name or a category, the fraction whose names and images are all "
        "of one category",
    ),
    MetricInfo(
        "diversity",
        "– diversity",
        "↑",
        "effective number of names and of text templates, relative to an equal number of real "
        "documents, at most 1",
    ),
    MetricInfo(
        "text_to_image",
        "Text to image",
        "↑",
        "fraction of images generated for a text that show what the text names",
    ),
    MetricInfo(
        "image_to_text",
        "Image to text",
        "↑",
        "fraction of captions generated for an image that name what the image shows",
    ),
    MetricInfo(
        "cider",
        "CIDEr of captions",
        "↑",
        "similarity of captions to reference captions, by COCO's scorer, 0 to 10",
        decimal_formatter(2),
    ),
    MetricInfo(
        "nats_per_document",
        "Text NLL, nats",
        "↓",
        "-log p of the text of a held-out document, whose names are not in the training data; for "
        "Mask Flow an upper bound, given the layout",
        decimal_formatter(1),
    ),
    MetricInfo(
        "train_copy_rate",
        "Copied text",
        "",
        "fraction of documents whose text occurs in the training data exactly",
    ),
    MetricInfo(
        "fid",
        "FID",
        "↓",
        "Fréchet distance on Inception v3 features, computed on the same images as KID",
        format_significant,
    ),
    MetricInfo(
        "clip_score",
        "CLIP score",
        "↑",
        "similarity of image and caption, by the CLIP model in evaluation.clip_dir",
        decimal_formatter(1),
    ),
    MetricInfo(
        "heldout_concept_accuracy",
        "Held-out names",
        "↑",
        "fraction of images that show the name they were generated for, for names that are not in "
        "the training data",
    ),
    MetricInfo(
        "styled",
        "Name and style",
        "↑",
        "fraction of images generated for a name and a style that show the name in the style; the "
        "pair is in the training data",
    ),
    MetricInfo(
        "composition",
        "Composition",
        "↑",
        "fraction of images generated for a name and a style that show the name in the style; the "
        "pair is not in the training data, although other images of the name and the style are",
    ),
    MetricInfo(
        "composition_name", "– its name", "↑", "fraction of these images with the right name"
    ),
    MetricInfo(
        "composition_style", "– its style", "↑", "fraction of these images with the right style"
    ),
    MetricInfo(
        "composition_judge_name",
        "– its name, by a judge",
        "↑",
        "fraction of these images with the right name, by a classifier that was not trained on the "
        "images of these pairs",
    ),
    MetricInfo(
        "composition_kid",
        "KID of compositions",
        "↓",
        "kernel distance between these images and the real images of their pairs, like KID",
        decimal_formatter(4),
    ),
    MetricInfo(
        "composition_kid_train",
        "KID of compositions to training",
        "",
        "kernel distance between these images and all training images, like KID",
        decimal_formatter(4),
    ),
    MetricInfo(
        "composition_memorization_rate",
        "Memorization of compositions",
        "↓",
        "fraction of these images that are closer to a training image than 95 % of the real images "
        "of their pairs are",
    ),
    MetricInfo(
        "memorization_rate",
        "Memorization rate",
        "↓",
        "fraction of images generated for held-out names that are closer to a training image than "
        "95 % of new real images are",
    ),
    MetricInfo(
        "train_flops",
        "Training FLOPs",
        "",
        "FLOPs of training; they differ between models by at most one training step",
        format_scientific,
    ),
    MetricInfo("parameters", "Parameters", "", "number of parameters, except codecs", format_count),
)
"""All metrics that have a description, in the order of the tables."""


def get(name: str) -> MetricInfo:
    """Return the metric with a name; a metric without an entry gets its name as title."""
    listed = {merit.name: merit for merit in METRICS}
    return listed.get(name, MetricInfo(name, name.replace("_", " "), "", "", format_significant))


def select(names: set[str]) -> list[MetricInfo]:
    """Return the metrics with these names, in the order of `METRICS`; unknown names come last."""
    known = [merit for merit in METRICS if merit.name in names]
    return known + [get(name) for name in sorted(names - {merit.name for merit in known})]


def best_marks(metric: MetricInfo, estimates: Mapping[str, Estimate]) -> dict[str, Mark]:
    """Mark the best model as "best", and models whose intervals overlap its interval as "tied".

    No model is marked if all values are equal, or if the metric has no direction.
    """
    if not metric.direction or len({figure.value for figure in estimates.values()}) < 2:
        return dict.fromkeys(estimates, "")
    choose = max if metric.direction == "↑" else min
    best = choose(estimates.values(), key=lambda figure: figure.value)

    def mark(figure: Estimate) -> Mark:
        if figure.value == best.value:
            return "best"
        return "tied" if figure.overlaps(best) else ""

    return {who: mark(figure) for who, figure in estimates.items()}
