"""The transformer: identical layers under `nn.scan`, or in a Python loop; and rematerialization."""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from oneflow_jax.nn import attention, layers, partitioning
from oneflow_jax.nn import rope as rope_lib
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Bool, Float, Int, PyTree

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Rematerialization policies, by what is saved for the backward pass: all activations ("none"), the
results of products with weight matrices ("dots"), or only the inputs of layers ("full")."""


STACK = "blocks"
"""Name of the stacked layers among the parameters of the backbone."""


def layer_name(number: int) -> str:
    """Return the name of one layer among the parameters, if layers are not stacked."""
    return f"block_{number}"


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of the transformer.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: N, D, H, K, A, F of `shapes`;
            K divides H, A is a multiple of 8.
        remat: one of `REMAT`.
        scan_unroll: number of layers in each iteration of the scan. If it equals `layers`, the
            program has no loop: it takes longer to compile and runs faster on CPUs.
        dtype: data type of matrix products; parameters are always float32.
        attention: one of `attention_ops.IMPLEMENTATIONS`.
        qk_norm, qkv_bias, norm_eps: as in `attention.Attention`; the norms before attention and
            MLP have `norm_eps`, too.
        post_norms: whether a norm also follows attention and the MLP, before the result is added
            to the layer's input.
        activation: as in `layers.GatedMLP`.
        score_cap: limit of the soft cap (`nn.soft_cap`) of attention scores; 0 without one.
        sliding_window: number of keys that a query of a local layer attends to at most; 0 if no
            layer is local.
        global_every: with a sliding window, every layer whose number, counted from 1, is a multiple
            of it is global; the others are local.
        rope_layout, rope_theta, rope_scaling: as in `rope.Rope`.
        rope_local_theta: theta of local layers, which have no scaling.
        stack_layers: whether the parameters and the KV cache of all layers are stacked along a
            first axis. For sampling, `nn.unstack` gives each layer arrays of its own.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    remat: str
    scan_unroll: int
    dtype: DTypeLike
    attention: str = "xla"
    qk_norm: bool = True
    qkv_bias: bool = False
    norm_eps: float = layers.NORM_EPS
    post_norms: bool = False
    activation: str = "silu"
    score_cap: float = 0.0
    sliding_window: int = 0
    global_every: int = 1
    rope_layout: str = "axial"
    rope_theta: float = 10_000.0
    rope_scaling: tuple[str | float, ...] = ()
    rope_local_theta: float = 10_000.0
    stack_layers: bool = True

    @property
    def rope(self) -> rope_lib.Rope:
        """The rotary position embeddings, those of global layers if there are local ones."""
        return rope_lib.Rope(self.rope_layout, self.rope_theta, self.rope_scaling)

    @property
    def local_rope(self) -> rope_lib.Rope:
        """The rotary position embeddings of local layers."""
        return rope_lib.Rope(self.rope_layout, self.rope_local_theta)

    @property
    def is_local(self) -> Bool[np.ndarray, "N"] | None:
        """Which layers are local; None if all are global."""
        if not self.sliding_window:
            return None
        return np.arange(1, self.layers + 1) % self.global_every != 0


@flax.struct.dataclass
class LocalInputs:
    """Inputs of local layers that differ from those of global layers.

    Attributes:
        rope: rotary angles of the slots.
        window: number of keys that a query attends to at most.
    """

    rope: attention.RopeAngles
    window: int = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class LayerInputs:
    """Inputs that all layers share.

    Attributes:
        attention_mask: the attention mask; with a KV cache, its keys are all slots of the cache.
        rope: rotary angles of the slots.
        is_image: True for image slots.
        length: number of valid slots in each row of the KV cache; None without a cache.
        local: what differs in local layers; None if all layers are global.
    """

    attention_mask: AttentionMask
    rope: attention.RopeAngles
    is_image: Bool[Array, "B L"]
    length: Int[Array, "B"] | None = None
    local: LocalInputs | None = None

    def select_layer(self, is_local: Bool[Array, ""]) -> "LayerInputs":
        """Return the inputs of one layer, a local or a global one."""
        mask, window = self.attention_mask, self.local.window
        if window < mask.num_keys:  # Otherwise the window changes nothing.
            mask = mask.limit(jnp.where(is_local, window, mask.num_keys))
        angles = jax.tree.map(
            lambda local, other: jnp.where(is_local, local, other), self.local.rope, self.rope
        )
        return self.replace(attention_mask=mask, rope=angles)


LayerKV = tuple[Float[Array, "B S K A"], Float[Array, "B S K A"]] | None
"""Keys and values of one layer of the KV cache, or None without a cache."""


class TransformerLayer(nn.Module):
    """A layer: `pre_attention` per slot, attention between slots, `post_attention` per slot.

    Subclasses implement the two methods.
    """

    config: TransformerConfig

    def __call__(
        self,
        x: Float[Array, "B L D"],
        layer_inputs: LayerInputs,
        layer_kv: LayerKV,
        is_local: Bool[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerKV]:
        """Return the next layer's input, and this layer's keys and values in the KV cache.

        `is_local` is None if no layer of the network is local.
        """
        if is_local is not None:
            layer_inputs = layer_inputs.select_layer(is_local)
        cache = None if layer_kv is None else attention.KVCache(*layer_kv, layer_inputs.length)
        qkv, size = self.pre_attention(x, layer_inputs), self.config
        attn_output, cache = attention.attend_with_cache(
            qkv, layer_inputs.attention_mask, cache, size.attention, size.score_cap
        )
        x = self.post_attention(x, layer_inputs, attn_output)
        layer_kv = None if cache is None else (cache.key, cache.value)
        return partitioning.with_logical_constraint(x, ("rows", "slots", "act_width")), layer_kv

    def pre_attention(self, x: Float[Array, "B L D"], layer_inputs: LayerInputs) -> attention.QKV:
        """Compute queries, keys and values."""
        raise NotImplementedError

    def post_attention(
        self,
        x: Float[Array, "B L D"],
        layer_inputs: LayerInputs,
        attn_output: Float[Array, "B L H A"],
    ) -> Float[Array, "B L D"]:
        """Compute the layer's output from its input and the output of attention."""
        raise NotImplementedError


class Block(TransformerLayer):
    """The standard pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x)).

    With `post_norms`, it is x + norm(attention(norm(x))), then x + norm(mlp(norm(x))).
    """

    def setup(self) -> None:
        """Create attention, the MLP, a norm before each, and with `post_norms` one after each."""
        size = self.config
        make_norm = functools.partial(layers.rms_norm, size.dtype, eps=size.norm_eps)
        make_post_norm = make_norm if size.post_norms else lambda: layers.identity
        self.attention_norm, self.attention_post_norm = make_norm(), make_post_norm()
        self.attention = attention.Attention(
            size.heads,
            size.kv_heads,
            size.head_width,
            size.width,
            size.dtype,
            qk_norm=size.qk_norm,
            qkv_bias=size.qkv_bias,
            norm_eps=size.norm_eps,
        )
        self.mlp_norm, self.mlp_post_norm = make_norm(), make_post_norm()
        self.mlp = layers.GatedMLP(size.hidden, size.dtype, size.activation)

    def pre_attention(self, x: Float[Array, "B L D"], layer_inputs: LayerInputs) -> attention.QKV:
        """Compute queries, keys and values."""
        return self.attention.qkv_proj(self.attention_norm(x), layer_inputs.rope)

    def post_attention(
        self,
        x: Float[Array, "B L D"],
        layer_inputs: LayerInputs,
        attn_output: Float[Array, "B L H A"],
    ) -> Float[Array, "B L D"]:
        """Compute the layer's output from its input and the output of attention."""
        del layer_inputs
        x = x + self.attention_post_norm(self.attention.out_proj(attn_output))
        return x + self.mlp_post_norm(self.mlp(self.mlp_norm(x)))


class Backbone(nn.Module):
    """`config.layers` layers and a norm; `config.stack_layers` says how parameters are stored."""

    config: TransformerConfig
    layer: type[TransformerLayer] = Block

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        layer_inputs: LayerInputs,
        cache: attention.KVCache | None = None,
    ) -> tuple[Float[Array, "B L D"], attention.KVCache | None]:
        """Return the normalized output for every slot, and the KV cache with the new slots."""
        run = self._scan if self.config.stack_layers else self._loop
        if cache is None:
            x, _ = run(x, layer_inputs, None)
        else:
            x, (key, value) = run(
                x, layer_inputs.replace(length=cache.length), (cache.key, cache.value)
            )
            cache = cache.replace(key=key, value=value)
        norm = layers.rms_norm(self.config.dtype, name="norm", eps=self.config.norm_eps)
        return norm(x), cache

    def _scan(
        self, x: Float[Array, "B L D"], layer_inputs: LayerInputs, kv: PyTree
    ) -> tuple[Float[Array, "B L D"], PyTree]:
        size, layer = self.config, self.layer
        if REMAT[size.remat] is not None:
            # prevent_cse is not needed: within a scan, XLA cannot merge the recomputation with the
            # forward pass.
            layer = nn.remat(layer, prevent_cse=False, policy=REMAT[size.remat])
        stack = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0, 0),
            length=size.layers,
            unroll=size.scan_unroll,
            # This check traces the layer a second time, so it is off in forward passes. It stays on
            # in initialization: without it, the same seed would give other parameters.
            check_constancy_invariants=self.is_initializing(),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(size, name=STACK)
        return stack(x, layer_inputs, kv, jax.tree.map(jnp.asarray, size.is_local))

    def _loop(
        self, x: Float[Array, "B L D"], layer_inputs: LayerInputs, kv: PyTree
    ) -> tuple[Float[Array, "B L D"], PyTree]:
        size = self.config
        each_kv = [None] * size.layers if kv is None else zip(*kv, strict=True)
        each_local = [None] * size.layers if size.is_local is None else jnp.asarray(size.is_local)
        written = []
        for number, (layer_kv, is_local) in enumerate(zip(each_kv, each_local, strict=True)):
            layer = self.layer(size, name=layer_name(number))
            x, layer_kv = layer(x, layer_inputs, layer_kv, is_local)
            written.append(layer_kv)
        return x, None if kv is None else tuple(zip(*written, strict=True))
