"""The forward passes with which each paradigm generates a document.

    oneflow, mask_flow     every pass is over all slots
    edit_flow              every pass is over all slots; up to twice the NFE if images are inserted
    chameleon, dalle       one pass per token, text tokens and image codes, with a KV cache
    transfusion, lmfusion  one pass per text token; for an image, the passes of its flow over its
                           slots, with the KV cache, and one pass that adds the image to the cache

The numbers follow the samplers in `samplers`. Autoregressive samplers take one pass per token
that they write, including <image> and <end>, and one for BOS. In `edit_flow` a document grows in a
row of fixed length, so each pass is over all slots of the row. An image that is inserted late still
needs its whole flow (`edit.EditSampler.run_times`), so documents with images are counted with twice
the NFE, the worst case. In `lmfusion` all slots of a pass have one modality, so a pass reads the
weights of one tower. The costs assume no prompt and no guidance. Guidance would cost up to twice as
much.
"""

import dataclasses
from collections.abc import Callable, Iterator

from oneflow_jax.costs.flops import Network


@dataclasses.dataclass(frozen=True)
class DocumentShape:
    """Shape of a document: text runs of about equal length, each followed by an image.

    Attributes:
        num_text_tokens: number of text tokens, including BOS, <image> and <end>.
        num_images: number of images.
        patches_per_image, codes_per_image: slots of one image as patches and as codes.
    """

    num_text_tokens: int
    num_images: int
    patches_per_image: int
    codes_per_image: int

    @property
    def num_slots(self) -> int:
        """Number of slots of the document if its images are patches."""
        return self.num_text_tokens + self.num_images * self.patches_per_image

    def text_run_lengths(self) -> Iterator[int]:
        """Return the number of text tokens before each image; without images, the total number."""
        parts = max(self.num_images, 1)
        return (
            self.num_text_tokens * (n + 1) // parts - self.num_text_tokens * n // parts
            for n in range(parts)
        )


@dataclasses.dataclass(frozen=True)
class ForwardPass:
    """The slots of one row of the batch in a forward pass, and how often the pass is repeated.

    Attributes:
        num_slots: number of slots that pass through the network; each attends to all of them.
        context_length: number of slots in the KV cache, to which each slot attends too.
        num_modalities: 2 if the slots are text and images, else 1.
        repeats: number of equal passes.
    """

    num_slots: int
    context_length: int = 0
    num_modalities: int = 1
    repeats: int = 1


PassSchedule = Callable[[DocumentShape, int], Iterator[ForwardPass]]
"""Function that maps a document and an NFE to forward passes; some functions take NFE per image."""


@dataclasses.dataclass(frozen=True)
class GenerationProfile:
    """The forward passes, KV cache, heads and towers with which a paradigm generates documents.

    Attributes:
        schedule: function that lists the forward passes.
        uses_kv_cache: whether the sampler uses a KV cache.
        num_vocab_heads: number of heads over the whole vocabulary.
        towers: number of towers, as in `Network`.
    """

    schedule: PassSchedule
    uses_kv_cache: bool
    num_vocab_heads: int = 1
    towers: int = 1

    def network(self, base_network: Network) -> Network:
        """Return `base_network` with the vocabulary heads and towers of the paradigm.

        Args:
            base_network: network with one vocabulary head and one tower.
        """
        more = (self.num_vocab_heads - 1) * base_network.vocab
        return dataclasses.replace(
            base_network, outputs=base_network.outputs + more, towers=self.towers
        )


def all_slot_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """Yield `nfe` passes over all slots."""
    kinds = 2 if document.num_text_tokens and document.num_images else 1
    yield ForwardPass(document.num_slots, num_modalities=kinds, repeats=nfe)


def insertion_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """Yield passes over all slots: `nfe`, or twice as many if there are images."""
    return all_slot_passes(document, 2 * nfe if document.num_images else nfe)


def token_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """Yield one pass per text token and per image code."""
    del nfe
    tokens = document.num_text_tokens + document.num_images * document.codes_per_image
    return (ForwardPass(1, before) for before in range(tokens))


def token_and_image_flow_passes(document: DocumentShape, nfe: int) -> Iterator[ForwardPass]:
    """Yield one pass per text token, and `nfe` + 1 passes per image."""
    before = 0
    for run in document.text_run_lengths():
        yield from (ForwardPass(1, before + n) for n in range(run))
        before += run
        if document.num_images:
            yield ForwardPass(document.patches_per_image, before, repeats=nfe + 1)
            before += document.patches_per_image


_ALL_SLOTS = GenerationProfile(all_slot_passes, uses_kv_cache=False)
_AUTOREGRESSIVE = GenerationProfile(token_passes, uses_kv_cache=True)

PROFILES = {
    "oneflow": _ALL_SLOTS,
    "mask_flow": _ALL_SLOTS,
    "edit_flow": GenerationProfile(insertion_passes, uses_kv_cache=False, num_vocab_heads=2),
    "chameleon": _AUTOREGRESSIVE,
    "dalle": _AUTOREGRESSIVE,
    "transfusion": GenerationProfile(token_and_image_flow_passes, uses_kv_cache=True),
    "lmfusion": GenerationProfile(token_and_image_flow_passes, uses_kv_cache=True, towers=2),
}
"""Profiles by paradigm. `dalle` costs as much as `chameleon`; it only orders text before images."""
