"""Least seconds that a document can take on given chips: a roofline.

A forward pass of all rows of a batch takes max(FLOPs / peak, bytes / bandwidth), where the bytes
are the network's weights in bfloat16, once (`Network.weights`), and the keys and values of the
slots that its rows have in their caches. It is a bound from below, for it takes as free:

- all that is not a matrix product, and activations, the pass's own keys and values, logits and the
  choice of tokens among them: they are neither counted nor read from memory.
- starting a pass, and padding to the chip's tiles: computing and reading overlap perfectly.
- several chips: they share weights, work and caches evenly (tensor parallel), and what they tell
  one another is hidden: 8 D bytes for each slot and layer (two all-reduces of D numbers), beside
  24 D^2 FLOPs or so. In full passes that holds up to 3 D W / peak chips in a ring, with W the
  bytes/s that one of them sends along it: 4 of v4 at a width of 4,096.
- the other tower: a slot goes through its own alone. (A program that runs both and picks reads and
  computes nearly twice as much in each pass of `lmfusion`.)
- caches longer than what is in them, and rows that wait: all documents of a batch are of one
  shape, so that all rows are at the same place. (`paradigms.writing` reads its whole cache in every
  pass, and its rows wait at pictures for one another.)

What is free here is less free in many small passes than in few large ones.
"""

import dataclasses
import math
from collections.abc import Iterable

from oneflow_jax.costs import flops
from oneflow_jax.costs.chips import Chip
from oneflow_jax.costs.flops import Network
from oneflow_jax.costs.ways import DocumentShape, ForwardPass, GenerationProfile


@dataclasses.dataclass(frozen=True)
class Deployment:
    """What is asked of what.

    Attributes:
        network: with one head over the vocabulary and one tower; ways add theirs.
        document: to generate.
        batch: documents at a time.
        chip: the kind of chip.
        chips: how many share the work; `min_chips` says how many must.
    """

    network: Network
    document: DocumentShape
    batch: int
    chip: Chip
    chips: int = 1


def seconds(profile: GenerationProfile, nfe: int, deployment: Deployment) -> float:
    """Seconds per document: those of a batch, divided by its documents.

    Args:
        profile: of generating.
        nfe: forward passes of the whole document, or of each picture's flow.
        deployment: of which network, on what.
    """
    network = profile.network(deployment.network)
    schedule = profile.schedule(deployment.document, nfe)
    total = sum(one.times * _forward_seconds(network, one, deployment) for one in schedule)
    return total / deployment.batch


def crossover_nfe(profile: GenerationProfile, limit: float, deployment: Deployment) -> int | None:
    """The most passes in which a way takes less than `limit` seconds per document.

    Of a way whose passes are all alike, without a cache; None if one pass already takes as long.
    """
    return math.ceil(limit / seconds(profile, 1, deployment)) - 1 or None


def min_chips(profile: GenerationProfile, deployment: Deployment) -> int:
    """The least power of two of chips whose memory holds all weights and full caches."""
    network = profile.network(deployment.network)
    last = max(one.before + one.slots for one in profile.schedule(deployment.document, 1))
    cache = deployment.batch * last * network.kv_bytes_per_slot if profile.cached else 0
    full = flops.BF16_BYTES * network.parameters + cache
    return 2 ** max(math.ceil(math.log2(full / deployment.chip.memory)), 0)


def fit_chips(deployment: Deployment, profiles: Iterable[GenerationProfile]) -> Deployment:
    """The setting with as many chips as the way needs that needs most."""
    return dataclasses.replace(
        deployment, chips=max(min_chips(way, deployment) for way in profiles)
    )


def _forward_seconds(network: Network, forward_pass: ForwardPass, deployment: Deployment) -> float:
    keys, rows = forward_pass.before + forward_pass.slots, deployment.batch
    work = flops.forward(network, rows * forward_pass.slots, keys)
    read = (
        network.weights(forward_pass.kinds) + rows * forward_pass.before * network.kv_bytes_per_slot
    )
    chip = deployment.chip
    return max(work / chip.peak, read / chip.bandwidth) / deployment.chips
