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
class Shape:
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
class Pass:
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


Schedule = Callable[[Shape, int], Iterator[Pass]]
"""The passes of a document, for a number of passes: of the whole, or of each picture's flow."""


@dataclasses.dataclass(frozen=True)
class Way:
    """How a paradigm generates.

    Attributes:
        schedule: its passes.
        cached: whether what was before is kept in a cache.
        vocabularies: heads that speak of all of the vocabulary.
        towers: as in `Network`.
    """

    schedule: Schedule
    cached: bool
    vocabularies: int = 1
    towers: int = 1

    def network(self, plain: Network) -> Network:
        """A network of one such head and one tower, with those of this way instead."""
        more = (self.vocabularies - 1) * plain.vocab
        return dataclasses.replace(plain, outputs=plain.outputs + more, towers=self.towers)


def at_once(document: Shape, passes: int) -> Iterator[Pass]:
    """All slots in every pass."""
    kinds = 2 if document.words and document.pictures else 1
    yield Pass(document.slots, kinds=kinds, times=passes)


def growing(document: Shape, passes: int) -> Iterator[Pass]:
    """The same, twice as often if there are pictures."""
    return at_once(document, 2 * passes if document.pictures else passes)


def codes_after_words(document: Shape, passes: int) -> Iterator[Pass]:
    """A pass for each word and each code."""
    del passes
    tokens = document.words + document.pictures * document.codes
    return (Pass(1, before) for before in range(tokens))


def flows_after_words(document: Shape, passes: int) -> Iterator[Pass]:
    """A pass for each word, `passes` and one more for each picture."""
    before = 0
    for run in document.runs():
        yield from (Pass(1, before + n) for n in range(run))
        before += run
        if document.pictures:
            yield Pass(document.patches, before, times=passes + 1)
            before += document.patches


_TOGETHER = Way(at_once, cached=False)
_CODES = Way(codes_after_words, cached=True)

WAYS = {
    "oneflow": _TOGETHER,
    "mask_flow": _TOGETHER,
    "edit_flow": Way(growing, cached=False, vocabularies=2),
    "chameleon": _CODES,
    "dalle": _CODES,
    "transfusion": Way(flows_after_words, cached=True),
    "lmfusion": Way(flows_after_words, cached=True, towers=2),
}
"""By the name of the paradigm. `dalle` writes all words first, which changes nothing here."""
