"""The forward passes that each paradigm makes one document in.

    oneflow, mask_flow    every pass over all slots
    edit_flow             the same, and up to twice as many passes where pictures are born
    chameleon, dalle      a pass a token, words and codes, each against a cache of those before
    transfusion, lmfusion a pass a word; for a picture its flow's passes over all of its slots
                          against the cache, and one more, which puts it there

As `paradigms` samples: left-to-right ones take one pass for each token that they write, what opens
a picture and what ends the document among them, and one for BOS. A document grows under `edit_flow`
in a row of fixed length, so that its passes too are over all slots; a picture that is born at the
end of the words has its own time still to run (`growth.Sampler.taus`). That is counted as the
worst: twice the passes, if there is any picture. All slots of a pass of `lmfusion` are of one kind,
so that it needs one tower's weights. Nothing is given, and nothing is guided, which would cost up
to twice as much.
"""

import dataclasses
from collections.abc import Callable, Iterator

from oneflow_jax.costs.flops import Network


@dataclasses.dataclass(frozen=True)
class DocumentShape:
    """A document: equal runs of text, each followed by a picture.

    Attributes:
        words: text tokens, BOS, <image> and <end> among them.
        pictures: how many.
        patches, codes: slots of one picture as patches and as codes.
    """

    words: int
    pictures: int
    patches: int
    codes: int

    @property
    def slots(self) -> int:
        """Slots of the document, with its pictures as patches."""
        return self.words + self.pictures * self.patches

    def runs(self) -> Iterator[int]:
        """Words before each picture, or of the whole document if there is none."""
        parts = max(self.pictures, 1)
        return (self.words * (n + 1) // parts - self.words * n // parts for n in range(parts))


@dataclasses.dataclass(frozen=True)
class ForwardPass:
    """One row's part in some equal forward passes.

    Attributes:
        slots: that go through the network.
        before: slots before them that they see in a cache; they see all of each other too.
        kinds: 2 if both words and pictures are among them, else 1.
        times: how many such passes there are.
    """

    slots: int
    before: int = 0
    kinds: int = 1
    times: int = 1


PassSchedule = Callable[[DocumentShape, int], Iterator[ForwardPass]]
"""The passes of a document, for a number of passes: of the whole, or of each picture's flow."""


@dataclasses.dataclass(frozen=True)
class GenerationProfile:
    """How a paradigm generates.

    Attributes:
        schedule: its passes.
        cached: whether what was before is kept in a cache.
        vocabularies: heads that speak of all of the vocabulary.
        towers: as in `Network`.
    """

    schedule: PassSchedule
    cached: bool
    vocabularies: int = 1
    towers: int = 1

    def network(self, plain: Network) -> Network:
        """A network of one such head and one tower, with those of this way instead."""
        more = (self.vocabularies - 1) * plain.vocab
        return dataclasses.replace(plain, outputs=plain.outputs + more, towers=self.towers)


def all_slot_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """All slots in every pass."""
    kinds = 2 if document.words and document.pictures else 1
    yield ForwardPass(document.slots, kinds=kinds, times=nfe)


def insertion_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """The same, twice as often if there are pictures."""
    return all_slot_passes(document, 2 * nfe if document.pictures else nfe)


def token_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """A pass for each word and each code."""
    del nfe
    tokens = document.words + document.pictures * document.codes
    return (ForwardPass(1, before) for before in range(tokens))


def token_and_image_flow_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """A pass for each word, `nfe` and one more for each picture."""
    before = 0
    for run in document.runs():
        yield from (ForwardPass(1, before + n) for n in range(run))
        before += run
        if document.pictures:
            yield ForwardPass(document.patches, before, times=nfe + 1)
            before += document.patches


_ALL_SLOTS = GenerationProfile(all_slot_passes, cached=False)
_AUTOREGRESSIVE = GenerationProfile(token_passes, cached=True)

PROFILES = {
    "oneflow": _ALL_SLOTS,
    "mask_flow": _ALL_SLOTS,
    "edit_flow": GenerationProfile(insertion_passes, cached=False, vocabularies=2),
    "chameleon": _AUTOREGRESSIVE,
    "dalle": _AUTOREGRESSIVE,
    "transfusion": GenerationProfile(token_and_image_flow_passes, cached=True),
    "lmfusion": GenerationProfile(token_and_image_flow_passes, cached=True, towers=2),
}
"""By the name of the paradigm. `dalle` writes all words first, which changes nothing here."""
