"""Networks and the document for the latency estimates; these networks are not trained here.

Each network has one text head and one image head.
"""

from oneflow_jax.costs.flops import Network
from oneflow_jax.costs.generation import DocumentShape

ONE_BILLION = Network(
    layers=24,
    width=2_048,
    heads=16,
    kv_heads=16,
    head_width=128,
    hidden=5_632,
    vocab=8_192,
    embed_width=512,
    channels=48,
    outputs=8_192 + 48,
)
"""The 1B network of `configs/tpu_v4.py:1B`: 1,260,184,112 parameters."""

EIGHT_BILLION = Network(
    layers=32,
    width=4_096,
    heads=32,
    kv_heads=8,
    head_width=128,
    hidden=14_336,
    vocab=128_256,
    embed_width=1_024,
    channels=64,
    outputs=128_256 + 64,
)
"""An 8B network with 7,658,957,120 parameters.

Backbone and vocabulary are those of Llama 3 8B (The Llama 3 Herd of Models, 2024, table 3; 128,256
tokens as released). A patch is 2 x 2 latents of 16 channels. Llama has 8.03 billion parameters,
since the rows of its embedding table have the full width of 4,096. `configs/tpu_v4.py:8B` has
131 thousand parameters fewer than this network, because it uses patches of pixels.
"""

NETWORKS = {"1B": ONE_BILLION, "8B": EIGHT_BILLION}
"""The networks by their size."""

DOCUMENT = DocumentShape(
    num_text_tokens=256, num_images=4, patches_per_image=256, codes_per_image=1_024
)
"""The document for which latencies are reported."""
