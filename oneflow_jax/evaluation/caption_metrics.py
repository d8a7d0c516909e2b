"""How captions compare with what people wrote of the same pictures: BLEU, ROUGE-L and CIDEr.

bleu1 ... bleu4  Papineni et al. (2002): precision of runs of 1 to n words, 0 to 1
rouge_l          Lin (2004): F-measure of the longest common run with gaps, 0 to 1
cider            Vedantam, Lawrence Zitnick, Parikh (2015): runs of words that tell one picture from
                 the others, 0 to 10. All captions must be scored at once: what tells pictures apart
                 is counted in the references, and of a single picture it is 0

They are those of COCO's evaluation (Chen et al., 2015), by its own scorers; its "CIDEr" is what the
paper calls CIDEr-D. Its tokenizer is a Java program, and not used here: texts are put in lower case
and split at spaces and punctuation, which is dropped. That is what the other does too, but for
contractions ("don't"), numbers and the like: do not compare such texts with published figures.
"""

import importlib.util
import re
from collections.abc import Sequence

import numpy as np

from oneflow_jax.errors import UserError

PACKAGE = "pycocoevalcap"
"""The optional package with the scorers."""


def is_missing() -> bool:
    """Whether the optional package is not there, so that there are no figures."""
    return importlib.util.find_spec(PACKAGE) is None


def compute_metrics(
    generated: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """All figures of the captions together; empty without the optional package, see `is_missing`.

    Args:
        generated: a caption for each picture, perhaps empty.
        references: of each picture, in their order, one right caption or more.

    Raises:
        UserError: no captions, not as many lists of references, or one of them empty.
    """
    if not generated or len(generated) != len(references) or not all(references):
        raise UserError(
            f"{len(generated)} captions and {len(references)} lists of references: give one "
            "caption or "
            "more, and of each a list that is not empty."
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
    """`rouge_l` and `cider` of each caption, whose means are those of all; needs the package."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    both = _index_captions(generated, references)
    scorers = {"rouge_l": Rouge(), "cider": Cider()}
    return {name: np.asarray(scorer.compute_score(*both)[1]) for name, scorer in scorers.items()}


def _index_captions(
    generated: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Right captions and made ones by number, as COCO's scorers want them."""
    right = {n: [normalize(one) for one in captions] for n, captions in enumerate(references)}
    return right, {n: [normalize(caption)] for n, caption in enumerate(generated)}


def normalize(caption: str) -> str:
    """The words in lower case, without punctuation, single spaces between them."""
    return " ".join(re.findall(r"\w+(?:['’-]\w+)*", caption.lower()))
