"""Unstacks the layers of a model for sampling, so that each layer has arrays of its own.

Training stacks the parameters of all layers along a first axis, for `nn.scan`. A sampler with a KV
cache runs one forward pass per token, and with stacked arrays each pass copies all weight matrices
and the whole cache, even if the scan is unrolled. With one array per layer nothing is copied.
"""

import dataclasses

import jax

from oneflow_jax.nn import backbone
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import PyTree


def unstack_layers(model: Model, params: PyTree) -> tuple[Model, PyTree]:
    """Return the model and its parameters with one array per layer.

    A model whose scan is a loop (`scan_unroll` below `layers`) stays as it is: its layers are many
    or large, so a program without a loop would take long to compile.

    Args:
        model: a model with stacked layers.
        params: its parameters, without partitioning metadata.
    """
    size = model.config
    if size.scan_unroll < size.layers:
        return model, params
    stack = params["backbone"][backbone.STACK]
    rest = {name: tree for name, tree in params["backbone"].items() if name != backbone.STACK}
    single = {
        backbone.layer_name(number): jax.tree.map(lambda x, n=number: x[n], stack)
        for number in range(size.layers)
    }
    unstacked = model.clone(config=dataclasses.replace(size, stack_layers=False))
    return unstacked, params | {"backbone": rest | single}
