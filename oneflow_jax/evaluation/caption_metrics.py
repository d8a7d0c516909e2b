"""Caption metrics against human references: BLEU, ROUGE-L and CIDEr.

bleu1 ... bleu4  precision of n-grams up to n = 1 ... 4, 0 to 1 (Papineni et al., 2002)
rouge_l          F-measure of the longest common subsequence, 0 to 1 (Lin, 2004)
cider            TF-IDF weighted n-gram similarity, 0 to 10 (Vedantam, Lawrence Zitnick, Parikh,
                 2015). Document frequencies are counted over the references of all images, so all
                 captions must be scored at once; for a single image, CIDEr is 0

The scorers are those of the COCO evaluation (Chen et al., 2015). COCO's "CIDEr" is the metric that
the paper calls CIDEr-D. COCO's tokenizer is a Java program and is not used. Instead, this module
lowercases texts, splits them at spaces and punctuation, and drops the punctuation. COCO's tokenizer
treats contractions ("don't") and numbers differently. So do not compare metrics of texts with
contractions or numbers with published values.
"""

import importlib.util
import re
from collections.abc import Sequence

import numpy as np

from oneflow_jax.errors import UserError

PACKAGE = "pycocoevalcap"
"""Name of the optional package with COCO's scorers."""


def is_missing() -> bool:
    """Return whether `PACKAGE` is not installed; then no caption metric is computed."""
    return importlib.util.find_spec(PACKAGE) is None


def compute_metrics(
    generated: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Compute all metrics of the captions; return {} if `PACKAGE` is not installed.

    Args:
        generated: one caption per image; a caption may be empty.
        references: for each image, in the same order, one or more reference captions.

    Raises:
        UserError: `generated` is empty, the numbers of captions and of reference lists differ, or a
            reference list is empty.
    """
    if not generated or len(generated) != len(references) or not all(references):
        raise UserError(
            f"{len(generated)} captions and {len(references)} lists of references: the numbers "
            "must be equal and above 0, and no list may be empty. Give one or more references per "
            "caption."
        )
    if is_missing():
        return {}
    from pycocoevalcap.bleu.bleu import Bleu

    bleu, _ = Bleu(4).compute_score(*_index_captions(generated, references), verbose=0)
    means = {
        name: float(np.mean(values))
        for name, values in compute_per_caption(generated, references).items()
    }
    return {f"bleu{n}": float(value) for n, value in enumerate(bleu, 1)} | means


def compute_per_caption(
    generated: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Compute `rouge_l` and `cider` per caption; their means are the corpus metrics."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    both = _index_captions(generated, references)
    scorers = {"rouge_l": Rouge(), "cider": Cider()}
    return {name: np.asarray(scorer.compute_score(*both)[1]) for name, scorer in scorers.items()}


def _index_captions(
    generated: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Map each image's index to its normalized references, and to a list with its caption."""
    right = {n: [normalize(one) for one in captions] for n, captions in enumerate(references)}
    return right, {n: [normalize(caption)] for n, caption in enumerate(generated)}


def normalize(caption: str) -> str:
    """Return the lowercased words without punctuation, separated by single spaces."""
    return " ".join(re.findall(r"\w+(?:['’-]\w+)*", caption.lower()))
