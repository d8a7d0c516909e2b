"""Figures of merit: what each is, which way is better, how it is written, and who is best."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

from oneflow_jax.compare.results import Figure

Mark = Literal["best", "tied", ""]

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimals(count: int) -> Callable[[float], str]:
    """Writes numbers with so many decimals, with a minus sign only if a digit is left."""

    def written(value: float) -> str:
        text = f"{value:,.{count}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")

    return written


share = decimals(3)
"""Writes a share of 1."""


def digits(value: float) -> str:
    """Three digits that count: 0.0123, 1.20, 1,230."""
    if not value:
        return "0"
    rounded = float(f"{value:.2e}")
    return decimals(max(0, 2 - math.floor(math.log10(abs(rounded)))))(rounded)


def whole(value: float) -> str:
    """A count; the mean of some with one decimal."""
    return decimals(0 if value == round(value) else 1)(value)


def power(value: float) -> str:
    """A large number as 1.20 · 10¹⁵."""
    factor, exponent = f"{value:.2e}".split("e")
    return f"{factor} · 10{str(int(exponent)).translate(_RAISED)}"


@dataclasses.dataclass(frozen=True)
class Merit:
    """A figure of merit: `better` is the arrow that its title bears."""

    name: str
    title: str
    better: Literal["↑", "↓", ""]
    meaning: str
    written: Callable[[float], str] = share

    def headline(self, remark: str = "") -> str:
        """The title, a remark, and the arrow, which stays with the word before it."""
        return "\u00a0".join(filter(None, (self.title + remark, self.better)))

    def range(self, low: float, high: float) -> str:
        """Two numbers as one reads them, or one if they are written alike."""
        return "–".join(dict.fromkeys((self.written(low), self.written(high))))

    def interval(self, figure: Figure) -> str:
        """The 95 % interval, or nothing where there is none."""
        if figure.exact:
            return ""
        return f"{self.written(figure.low)}–{self.written(figure.high)}"


MERITS = (
    Merit("passes", "Forward passes", "↓", "of the network, for one document made by itself, the "
          "mean", whole),
    Merit("seconds_per_document", "Seconds a document", "↓", "one at a time", digits),
    Merit("seconds_per_document_8", "Seconds a document, in eights", "↓",
          "eight at a time, divided by eight", digits),
    Merit("kid", "KID", "↓", "kernel distance of pictures made for captions from real ones, by "
          "EfficientNet-Lite0; of real ones about 0, and by chance below it", decimals(4)),
    Merit("fd", "FD", "↓", "Fréchet distance of the same; it grows as pictures get fewer, and by "
          "these features it is not FID", digits),
    Merit("precision", "Precision", "↑", "share of generated pictures that are like real ones"),
    Merit("recall", "Recall", "↑", "share of real pictures that are like generated ones"),
    Merit("text_valid", "Valid text", "↑", "share of documents whose words, pictures taken "
          "out, are one of the data's forms to the letter"),
    Merit("interleaved", "Interleaved quality", "↑", "words and pictures of documents made from "
          "nothing: the geometric mean of the five that follow"),
    Merit("shown", "– shown", "↑", "share of pictures that show the name mentioned in "
          "their place"),
    Merit("counted", "– counted", "↑", "of documents that promise a number, those with so many "
          "names and pictures"),
    Merit("ordered", "– ordered", "↑", "of documents with several pictures or names, those whose "
          "pictures show the names one by one"),
    Merit("agreed", "– agreed", "↑", "of documents that speak of anything, those whose names and "
          "pictures are all of one kind"),
    Merit("varied", "– varied", "↑", "names and forms of words by how many there are in equally "
          "many real documents, at most 1"),
    Merit("text_to_image", "Text to image", "↑", "share of pictures, made for given words, that "
          "show what these name"),
    Merit("image_to_text", "Image to text", "↑", "share of captions, made for given pictures, "
          "that name what these show"),
    Merit("cider", "CIDEr of captions", "↑", "by COCO's scorer, 0 to 10", decimals(2)),
    Merit("text_nats", "Nats of words", "↓", "of a held-out document, whose names training never "
          "showed: -log p, and of Mask Flow a bound on it, which is told the layout", decimals(1)),
    Merit("copied", "Copied words", "", "share of documents whose words stand in training to the "
          "letter"),
    Merit("fid", "FID", "↓", "by Inception v3, of as many pictures", digits),
    Merit("clip_score", "CLIP score", "↑", "of picture and caption, by the CLIP that was given",
          decimals(1)),
    Merit("unseen_named", "Names never shown", "↑", "share of pictures, made for names that "
          "training never showed, that show them"),
    Merit("unseen_close", "Too close to training", "↓", "of the same pictures, those closer to one "
          "of training than all but 5 % of new real ones are"),
    Merit("train_flops", "Training FLOPs", "", "the same for all, up to one step", power),
    Merit("parameters", "Parameters", "", "that are trained", whole),
)  # fmt: skip
"""In the order in which people read them."""


def called(name: str) -> Merit:
    """The merit of that name; of one that is not listed, its bare name."""
    listed = {merit.name: merit for merit in MERITS}
    return listed.get(name, Merit(name, name.replace("_", " "), "", "", digits))


def listed(names: set[str]) -> list[Merit]:
    """The merits of these names, in reading order; those that are not listed come last."""
    known = [merit for merit in MERITS if merit.name in names]
    return known + [called(name) for name in sorted(names - {merit.name for merit in known})]


def marks(merit: Merit, figures: Mapping[str, Figure]) -> dict[str, Mark]:
    """Who is best, and whose interval overlaps that of the best.

    Nobody, if all are the same.
    """
    if not merit.better or len({figure.value for figure in figures.values()}) < 2:
        return dict.fromkeys(figures, "")
    choose = max if merit.better == "↑" else min
    best = choose(figures.values(), key=lambda figure: figure.value)

    def mark(figure: Figure) -> Mark:
        if figure.value == best.value:
            return "best"
        return "tied" if figure.overlaps(best) else ""

    return {who: mark(figure) for who, figure in figures.items()}
