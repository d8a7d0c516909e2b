"""Roofline model of latency: a lower bound on the seconds per document on given chips.

A forward pass over a batch takes max(FLOPs / peak, bytes / bandwidth). The bytes are the network's
bfloat16 weights, read once (`Network.weight_bytes`), and the cached keys and values of all rows.
The time is a lower bound, since the model ignores:

- Everything that is not a matrix product.
- Memory traffic of activations, of the keys and values that the pass computes, of logits and of
  token sampling.
- The overhead of starting a pass, and padding to tiles. Compute and memory traffic are assumed to
  overlap fully.
- Communication. Chips share weights, work and caches evenly (tensor parallelism), and computation
  is assumed to hide their all-reduces. Each slot and layer has two all-reduces of D values, 8 D
  bytes, and about 24 D^2 FLOPs. For passes over many slots, the assumption holds for rings of up
  to n = 3 D W / peak chips, where W is the bandwidth of a chip along the ring in bytes/s. On v4
  with D = 4,096, n is 4.
- The tower that a slot does not use. (A program that evaluates both towers and selects one of the
  results reads and computes nearly twice as much in each pass of `lmfusion`.)
- Unused cache entries and waiting rows. All documents of a batch are assumed to have one shape, so
  all rows are at the same position. (`samplers.autoregressive` reads its whole cache in every pass,
  and its rows wait for one another at images.)

The bound is less tight for many small passes than for few large ones.
"""

import dataclasses
import math
from collections.abc import Iterable

from oneflow_jax.costs import flops
from oneflow_jax.costs.chips import Chip
from oneflow_jax.costs.flops import Network
from oneflow_jax.costs.generation import DocumentShape, ForwardPass, GenerationProfile


@dataclasses.dataclass(frozen=True)
class Deployment:
    """Workload for which latency is computed: a network, a document shape, a batch and chips.

    Attributes:
        network: network with one vocabulary head and one tower; a profile adds the other heads and
            towers of a paradigm.
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
    """Return the seconds per document: the time of a batch divided by its number of documents.

    Args:
        profile: generation profile of a paradigm.
        nfe: number of forward passes of the whole document or, in profiles with a KV cache, of the
            flow of each image.
        deployment: network, document, batch and chips.
    """
    network = profile.network(deployment.network)
    schedule = profile.schedule(deployment.document, nfe)
    total = sum(one.repeats * _forward_seconds(network, one, deployment) for one in schedule)
    return total / deployment.batch


def crossover_nfe(profile: GenerationProfile, limit: float, deployment: Deployment) -> int | None:
    """Return the largest NFE that takes less than `limit` seconds per document.

    The profile must have no KV cache, so that all passes are equal. The result is None if a single
    pass takes `limit` seconds or more.
    """
    return math.ceil(limit / seconds(profile, 1, deployment)) - 1 or None


def min_chips(profile: GenerationProfile, deployment: Deployment) -> int:
    """Return the least number of chips, a power of 2, that can hold weights and full KV caches."""
    network = profile.network(deployment.network)
    last = max(
        one.context_length + one.num_slots for one in profile.schedule(deployment.document, 1)
    )
    cache = deployment.batch * last * network.kv_bytes_per_slot if profile.uses_kv_cache else 0
    full = flops.BF16_BYTES * network.num_parameters + cache
    return 2 ** max(math.ceil(math.log2(full / deployment.chip.hbm_bytes)), 0)


def fit_chips(deployment: Deployment, profiles: Iterable[GenerationProfile]) -> Deployment:
    """Return the deployment with as many chips as the most demanding profile needs."""
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
