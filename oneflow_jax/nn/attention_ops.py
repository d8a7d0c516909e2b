"""Dot-product attention, with a choice of five implementations.

| implementation | scores                           | masks                 | use for              |
|----------------|----------------------------------|-----------------------|----------------------|
| `xla`          | all at once                      | any                   | short rows           |
| `blockwise`    | one block of keys at a time      | any                   | long rows            |
| `splash`       | in a TPU kernel, never in memory | bidirectional, causal | TPUs                 |
| `triton`       | in a GPU kernel, never in memory | bidirectional, causal | NVIDIA GPUs          |
| `cudnn`        | in a GPU kernel, never in memory | any, as an L x L bias | NVIDIA GPUs, 16 bits |

With `auto`, `choose_implementation` chooses one of the five. A soft cap of scores is supported by
`xla`, `blockwise` and `splash`; sliding windows by `xla`, `blockwise` and `cudnn`. Where the mesh
shards the slots of a row, ring attention with `blockwise` on each device replaces the configured
implementation. The mask of decoding with a KV cache has no fixed pattern, so `blockwise` replaces a
configured kernel there.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.errors import UserError
from oneflow_jax.nn import blockwise_attention, partitioning, ring_attention
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float

IMPLEMENTATIONS = ("auto", "xla", "blockwise", "splash", "triton", "cudnn")

KERNEL_PLATFORMS = {"splash": "tpu", "triton": "gpu", "cudnn": "gpu"}
"""The platform of each kernel; "auto" chooses the first kernel that supports the problem."""

KERNEL_PATTERNS = {
    "splash": (AttentionPattern.BIDIRECTIONAL, AttentionPattern.CAUSAL),
    "triton": (AttentionPattern.BIDIRECTIONAL, AttentionPattern.CAUSAL),
    "cudnn": tuple(AttentionPattern),
}
"""The attention patterns that each kernel supports."""

SCORE_CAP_KERNELS = ("splash",)
"""Kernels that support a soft cap of scores."""

WINDOW_KERNELS = ("cudnn",)
"""Kernels that support sliding windows, which differ between the layers of one program."""

MIN_KERNEL_LENGTH = 128
"""Minimum number of keys for which "auto" chooses a kernel: kernels pad shorter rows."""

MAX_DENSE_LENGTH = 1_024
"""Maximum number of keys for which "auto" chooses `xla` rather than `blockwise`.

For the backward pass of a layer, `xla` keeps the weights: 4 H S bytes per slot. The layer's other
activations are about 18 D = 18 H A numbers of 4 bytes per slot. So for more than 18 A keys, which
are 1,152 keys for heads of width 64, the weights take more memory than everything else.
"""

MAX_GPU_HEAD_WIDTH = 128
"""Maximum head width of the GPU kernels, whose blocks must fit in on-chip memory."""

MIN_COMPUTE_CAPABILITY = (8, 0)
"""Compute capability of the oldest GPUs that the GPU kernels support: A100."""

INTERPRET_KERNELS = False
"""Whether kernels of other platforms run in interpreter mode; only tests set it."""

QUERY_AXES = ("rows", "slots", "act_heads", "head_width")
SHARD_AXES = (QUERY_AXES, QUERY_AXES, QUERY_AXES, ("rows", "slots"))


@dataclasses.dataclass(frozen=True)
class AttentionProblem:
    """What the choice of an implementation depends on.

    Attributes:
        platform: platform that the program is compiled for: "cpu", "gpu" or "tpu".
        pattern: the attention pattern; None with a KV cache.
        length: number of keys of a row.
        dtype: data type of queries, keys and values.
        head_width: number of channels of a head.
        compute_capability: compute capability of the GPU, for example (9, 0); None if this machine
            has no GPU, so the program is compiled for another machine.
        score_cap: limit of the soft cap of scores; 0 without one.
        has_window: whether some layers have a sliding window that is shorter than a row.
    """

    platform: str
    pattern: AttentionPattern | None
    length: int
    dtype: DTypeLike
    head_width: int
    compute_capability: tuple[int, int] | None = None
    score_cap: float = 0.0
    has_window: bool = False


def describe_problem(
    pattern: AttentionPattern | None,
    length: int,
    dtype: DTypeLike,
    head_width: int,
    *,
    score_cap: float = 0.0,
    has_window: bool = False,
) -> AttentionProblem:
    """Return the problem for the devices of the current mesh, or of this machine without a mesh."""
    platform, capability = partitioning.target_platform(), partitioning.compute_capability()
    return AttentionProblem(
        platform, pattern, length, dtype, head_width, capability, score_cap, has_window
    )


def choose_implementation(problem: AttentionProblem) -> tuple[str, str]:
    """Return the implementation that "auto" stands for, and the reason as a clause."""
    reason = f"a {problem.platform.upper()} has no attention kernel"
    if problem.pattern is None:
        reason = "kernels do not support the mask of a KV cache"
    elif problem.length < MIN_KERNEL_LENGTH:
        reason = f"kernels pad rows of fewer than {MIN_KERNEL_LENGTH} slots"
    else:
        for kernel, platform in KERNEL_PLATFORMS.items():
            if platform == problem.platform:
                obstacle = find_obstacle(kernel, problem)
                if not obstacle:
                    return kernel, f"it is the kernel for a {platform.upper()} and this mask"
                reason = f"{kernel} {obstacle}"
    if problem.length <= MAX_DENSE_LENGTH:
        return "xla", f"{reason}, and rows have at most {MAX_DENSE_LENGTH} keys"
    return "blockwise", f"{reason}, and rows have more than {MAX_DENSE_LENGTH} keys"


def find_obstacle(kernel: str, problem: AttentionProblem) -> str:
    """Return why a kernel does not support a problem, as a predicate; "" if it does.

    Args:
        kernel: one of `KERNEL_PLATFORMS`.
        problem: the problem; a KV cache does not count, since `blockwise` replaces the kernel.
    """
    platform = KERNEL_PLATFORMS[kernel]
    if problem.platform != platform and not INTERPRET_KERNELS:
        return f"runs on a {platform.upper()}, not on a {problem.platform.upper()}"
    if problem.pattern and problem.pattern not in KERNEL_PATTERNS[kernel]:
        return "supports only bidirectional and causal masks"
    if problem.score_cap and kernel not in SCORE_CAP_KERNELS:
        return "does not support model.score_cap"
    if problem.pattern and problem.has_window and kernel not in WINDOW_KERNELS:
        return "does not support rows longer than model.sliding_window"
    if platform != "gpu":
        return ""
    if problem.compute_capability and problem.compute_capability < MIN_COMPUTE_CAPABILITY:
        return "needs a GPU of compute capability {}.{} or more, such as an A100".format(
            *MIN_COMPUTE_CAPABILITY
        )
    if problem.head_width > MAX_GPU_HEAD_WIDTH:
        return f"supports heads of width {MAX_GPU_HEAD_WIDTH} at most"
    if kernel == "triton":
        return ""
    if jnp.dtype(problem.dtype).name not in ("bfloat16", "float16"):
        return "supports only bfloat16 and float16"
    if problem.length % 2:
        return "supports only rows with an even number of slots"
    if problem.compute_capability is None:
        return "can be compiled only on a machine with a GPU"
    return ""


def resolve_implementation(implementation: str, problem: AttentionProblem) -> str:
    """Return the implementation to use, which is never "auto".

    Raises:
        UserError: `implementation` is a kernel that does not support the problem.
    """
    if implementation == "auto":
        return choose_implementation(problem)[0]
    if implementation not in KERNEL_PLATFORMS:
        return implementation
    if obstacle := find_obstacle(implementation, problem):
        raise UserError(f"model.attention={implementation!r}: this kernel {obstacle}. Use 'auto'.")
    return "blockwise" if problem.pattern is None else implementation


def dot_product_attention(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    implementation: str,
    score_cap: float = 0.0,
) -> Float[Array, "B L H A"]:
    """Compute softmax(cap(query . key / sqrt(A))) value over the keys that the mask allows.

    K divides H: each key head serves H / K query heads.

    Args:
        query: queries of the L slots.
        key: keys of the S slots.
        value: values of the S slots.
        mask: the attention mask.
        implementation: one of `IMPLEMENTATIONS`.
        score_cap: limit of the soft cap (`nn.soft_cap`) of scores; 0 without one.

    Raises:
        UserError: `implementation` is a kernel that does not support these arguments.
    """
    if axis := partitioning.sharded_axis("slots"):
        around = functools.partial(ring_attention.attend, axis=axis, score_cap=score_cap)
        return partitioning.logical_shard_map(around, SHARD_AXES, QUERY_AXES)(
            query, key, value, mask
        )
    problem = describe_problem(
        mask.pattern,
        key.shape[1],
        query.dtype,
        query.shape[-1],
        score_cap=score_cap,
        has_window=mask.first_visible is not None,
    )
    implementation = resolve_implementation(implementation, problem)
    if implementation == "xla" and score_cap:
        return _attend_with_capped_scores(query, key, value, mask, score_cap)
    if implementation == "xla":
        return jax.nn.dot_product_attention(query, key, value, mask=mask.materialize()[:, None])
    if implementation == "blockwise":
        return blockwise_attention.attend(query, key, value, mask, score_cap)
    kernel = _load_kernel(
        implementation,
        interpret=problem.platform != KERNEL_PLATFORMS[implementation],
        score_cap=score_cap,
    )
    return partitioning.logical_shard_map(kernel, SHARD_AXES, QUERY_AXES)(query, key, value, mask)


def _attend_with_capped_scores(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    score_cap: float,
) -> Float[Array, "B L H A"]:
    """Compute all scores at once, as `jax.nn.dot_product_attention` does, which has no soft cap."""
    grouped = blockwise_attention.group_heads(query, key.shape[2])
    scores = blockwise_attention.compute_scores(grouped, key, score_cap)
    scores = jnp.where(mask.materialize()[:, None, None], scores, blockwise_attention.MASK_VALUE)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgls,bska->blkga", weights, value).reshape(query.shape)


def _load_kernel(name: str, *, interpret: bool, score_cap: float) -> Callable[..., Array]:
    """Return a kernel as a function of queries, keys, values and the mask."""
    # The imports are slow: they load the compilers of Pallas.
    if name == "splash":
        from oneflow_jax.nn import splash_attention

        return functools.partial(splash_attention.attend, score_cap=score_cap, interpret=interpret)
    if name == "triton":
        from oneflow_jax.nn import triton_attention

        return functools.partial(triton_attention.attend, interpret=interpret)
    return _attend_with_cudnn


def _attend_with_cudnn(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
) -> Float[Array, "B L H A"]:
    """Compute attention with cuDNN, which reads the mask as an L x L bias shared by all heads."""
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask.materialize()[:, None], implementation="cudnn"
    )
