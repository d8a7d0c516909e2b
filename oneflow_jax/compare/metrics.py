"""Figures of merit: what each is, which way is better, how it is written, and who is best."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

from oneflow_jax.compare.results import Estimate

Mark = Literal["best", "tied", ""]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal_formatter(num_decimals: int) -> Callable[[float], str]:
    """Writes numbers with so many decimals, with a minus sign only if a digit is left."""

    def written(value: float) -> str:
        text = f"{value:,.{num_decimals}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")

    return written


format_fraction = decimal_formatter(3)
"""Writes a share of 1."""


def format_significant(value: float) -> str:
    """Three digits that count: 0.0123, 1.20, 1,230."""
    if not value:
        return "0"
    rounded = float(f"{value:.2e}")
    return decimal_formatter(max(0, 2 - math.floor(math.log10(abs(rounded)))))(rounded)


def format_count(value: float) -> str:
    """A count; the mean of some with one decimal."""
    return decimal_formatter(0 if value == round(value) else 1)(value)


def format_scientific(value: float) -> str:
    """A large number as 1.20 · 10¹⁵."""
    factor, exponent = f"{value:.2e}".split("e")
    return f"{factor} · 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


@dataclasses.dataclass(frozen=True)
class MetricInfo:
    """A figure of merit: `better` is the arrow that its title bears."""

    name: str
    title: str
    better: Literal["↑", "↓", ""]
    meaning: str
    format_value: Callable[[float], str] = format_fraction

    def headline(self, remark: str = "") -> str:
        """The title, a remark, and the arrow, which stays with the word before it."""
        return "\u00a0".join(filter(None, (self.title + remark, self.better)))

    def range(self, low: float, high: float) -> str:
        """Two numbers as one reads them, or one if they are written alike."""
        return "–".join(dict.fromkeys((self.format_value(low), self.format_value(high))))

    def interval(self, figure: Estimate) -> str:
        """The 95 % interval, or nothing where there is none."""
        if figure.exact:
            return ""
        return f"{self.format_value(figure.low)}–{self.format_value(figure.high)}"


METRICS = (
    MetricInfo(
        "passes",
        "Forward passes",
        "↓",
        "of the network, for one document made by itself, the mean",
        format_count,
    ),
    MetricInfo(
        "seconds_per_document", "Seconds a document", "↓", "one at a time", format_significant
    ),
    MetricInfo(
        "seconds_per_document_8",
        "Seconds a document, in eights",
        "↓",
        "eight at a time, divided by eight",
        format_significant,
    ),
    MetricInfo(
        "kid",
        "KID",
        "↓",
        "kernel distance of pictures made for captions from real ones, by "
        "EfficientNet-Lite0; of real ones about 0, and by chance below it",
        decimal_formatter(4),
    ),
    MetricInfo(
        "fd",
        "FD",
        "↓",
        "Fréchet distance of the same; it grows as pictures get fewer, and by "
        "these features it is not FID",
        format_significant,
    ),
    MetricInfo(
        "precision", "Precision", "↑", "share of generated pictures that are like real ones"
    ),
    MetricInfo("recall", "Recall", "↑", "share of real pictures that are like generated ones"),
    MetricInfo(
        "text_valid",
        "Valid text",
        "↑",
        "share of documents whose words, pictures taken "
        "out, are one of the data's forms to the letter",
    ),
    MetricInfo(
        "interleaved",
        "Interleaved quality",
        "↑",
        "words and pictures of documents made from "
        "nothing: the geometric mean of the five that follow",
    ),
    MetricInfo(
        "shown", "– shown", "↑", "share of pictures that show the name mentioned in their place"
    ),
    MetricInfo(
        "counted",
        "– counted",
        "↑",
        "of documents that promise a number, those with so many names and pictures",
    ),
    MetricInfo(
        "ordered",
        "– ordered",
        "↑",
        "of documents with several pictures or names, those whose "
        "pictures show the names one by one",
    ),
    MetricInfo(
        "agreed",
        "– agreed",
        "↑",
        "of documents that speak of anything, those whose names and pictures are all of one kind",
    ),
    MetricInfo(
        "varied",
        "– varied",
        "↑",
        "names and forms of words by how many there are in equally many real documents, at most 1",
    ),
    MetricInfo(
        "text_to_image",
        "Text to image",
        "↑",
        "share of pictures, made for given words, that show what these name",
    ),
    MetricInfo(
        "image_to_text",
        "Image to text",
        "↑",
        "share of captions, made for given pictures, that name what these show",
    ),
    MetricInfo(
        "cider", "CIDEr of captions", "↑", "by COCO's scorer, 0 to 10", decimal_formatter(2)
    ),
    MetricInfo(
        "text_nats",
        "Nats of words",
        "↓",
        "of a held-out document, whose names training never "
        "showed: -log p, and of Mask Flow a bound on it, which is told the layout",
        decimal_formatter(1),
    ),
    MetricInfo(
        "copied",
        "Copied words",
        "",
        "share of documents whose words stand in training to the letter",
    ),
    MetricInfo("fid", "FID", "↓", "by Inception v3, of as many pictures", format_significant),
    MetricInfo(
        "clip_score",
        "CLIP score",
        "↑",
        "of picture and caption, by the CLIP that was given",
        decimal_formatter(1),
    ),
    MetricInfo(
        "unseen_named",
        "Names never shown",
        "↑",
        "share of pictures, made for names that training never showed, that show them",
    ),
    MetricInfo(
        "unseen_close",
        "Too close to training",
        "↓",
        "of the same pictures, those closer to one "
        "of training than all but 5 % of new real ones are",
    ),
    MetricInfo(
        "train_flops", "Training FLOPs", "", "the same for all, up to one step", format_scientific
    ),
    MetricInfo("parameters", "Parameters", "", "that are trained", format_count),
)
"""In the order in which people read them."""


def get(name: str) -> MetricInfo:
    """The merit of that name; of one that is not listed, its bare name."""
    listed = {merit.name: merit for merit in METRICS}
    return listed.get(name, MetricInfo(name, name.replace("_", " "), "", "", format_significant))


def select(names: set[str]) -> list[MetricInfo]:
    """The merits of these names, in reading order; those that are not listed come last."""
    known = [merit for merit in METRICS if merit.name in names]
    return known + [get(name) for name in sorted(names - {merit.name for merit in known})]


def best_marks(metric: MetricInfo, estimates: Mapping[str, Estimate]) -> dict[str, Mark]:
    """Who is best, and whose interval overlaps that of the best.

    Nobody, if all are the same.
    """
    if not metric.better or len({figure.value for figure in estimates.values()}) < 2:
        return dict.fromkeys(estimates, "")
    choose = max if metric.better == "↑" else min
    best = choose(estimates.values(), key=lambda figure: figure.value)

    def mark(figure: Estimate) -> Mark:
        if figure.value == best.value:
            return "best"
        return "tied" if figure.overlaps(best) else ""

    return {who: mark(figure) for who, figure in estimates.items()}
