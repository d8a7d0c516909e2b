"""Roofline model of latency: a lower bound on the seconds per document on given chips.

A forward pass over a batch takes max(FLOPs / peak, bytes / bandwidth). The bytes are the network's
bfloat16 weights, read once (`Network.weight_bytes`), and the cached keys and values of all rows. It
is a lower bound, since the model ignores:

- Everything that is not a matrix product; and memory traffic of activations, of the keys and values
  that the pass computes, of logits and of token sampling.
- The overhead of starting a pass and padding to tiles: compute and memory traffic overlap fully.
- Communication. Chips share weights, work and caches evenly (tensor parallelism), and their
  all-reduces are hidden: two of D values, or 8 D bytes, per slot and layer, compared with about
  24 D^2 FLOPs. For passes over many slots that holds for up to 3 D W / peak chips in a ring, where
  W is the bandwidth of a chip along the ring in bytes/s: 4 chips of v4 at D = 4,096.
- The other tower: a slot passes only through its own. (A program that evaluates both towers and
  selects one reads and computes nearly twice as much in each pass of `lmfusion`.)
- Unused cache entries and waiting rows: all documents of a batch have one shape, so that all rows
  are at the same position. (`samplers.autoregressive` reads its whole cache in every pass, and its
  rows wait for one another at images.)

The bound is less tight for many small passes than for few large ones.
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
    """A network and the document, batch and chips for which its latency is computed.

    Attributes:
        network: network with one head over the vocabulary and one tower; profiles add theirs.
        document: shape of the documents to generate.
        batch: number of documents generated at once.
        chip: type of the chips.
        num_chips: number of chips that share the work; must be at least `min_chips`.
    """

    network: Network
    document: DocumentShape
    batch: int
    chip: Chip
    num_chips: int = 1


def seconds(profile: GenerationProfile, nfe: int, deployment: Deployment) -> float:
    """Return the seconds per document: those of a batch divided by its number of documents.

    Args:
        profile: generation profile of a paradigm.
        nfe: forward passes of the whole document, or of the flow of each image.
        deployment: network, document, batch and chips.
    """
    network = profile.network(deployment.network)
    schedule = profile.schedule(deployment.document, nfe)
    total = sum(one.repeats * _forward_seconds(network, one, deployment) for one in schedule)
    return total / deployment.batch


def crossover_nfe(profile: GenerationProfile, limit: float, deployment: Deployment) -> int | None:
    """Return the largest NFE that takes less than `limit` seconds per document.

    It applies to profiles without a KV cache, whose passes are all equal. It is None if a single
    pass takes `limit` seconds or more.
    """
    return math.ceil(limit / seconds(profile, 1, deployment)) - 1 or None


def min_chips(profile: GenerationProfile, deployment: Deployment) -> int:
    """Return the smallest power of two of chips whose memory holds the weights and full caches."""
    network = profile.network(deployment.network)
    last = max(
        one.context_length + one.num_slots for one in profile.schedule(deployment.document, 1)
    )
    cache = deployment.batch * last * network.kv_bytes_per_slot if profile.uses_kv_cache else 0
    full = flops.BF16_BYTES * network.num_parameters + cache
    return 2 ** max(math.ceil(math.log2(full / deployment.chip.hbm_bytes)), 0)


def fit_chips(deployment: Deployment, profiles: Iterable[GenerationProfile]) -> Deployment:
    """Return the deployment with enough chips for each of the profiles."""
    return dataclasses.replace(
        deployment, num_chips=max(min_chips(way, deployment) for way in profiles)
    )


def _forward_seconds(network: Network, forward_pass: ForwardPass, deployment: Deployment) -> float:
    keys, rows = forward_pass.context_length + forward_pass.num_slots, deployment.batch
    work = flops.forward(network, rows * forward_pass.num_slots, keys)
    read = (
        network.weight_bytes(forward_pass.num_modalities)
        + rows * forward_pass.context_length * network.kv_bytes_per_slot
    )
    chip = deployment.chip
    return max(work / chip.peak_flops, read / chip.hbm_bandwidth) / deployment.num_chips
