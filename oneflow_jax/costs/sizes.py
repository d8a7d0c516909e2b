"""Networks to ask about that this project has not trained: one head for words, one for patches."""

from oneflow_jax.costs.flops import Network
from oneflow_jax.costs.ways import DocumentShape

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
"""That of `configs/tpu_v4.py:1B`: 1,260,184,112 parameters."""

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
"""Backbone and vocabulary of Llama 3 8B (The Llama 3 Herd of Models, 2024, table 3; 128,256 tokens
as released), patches of 2 x 2 latents of 16 channels: 7,658,957,120 parameters. Llama has 8.03
billion, for its table is of full width; `configs/tpu_v4.py:8B`, with patches of pixels, has 131
thousand fewer."""

NETWORKS = {"1B": ONE_BILLION, "8B": EIGHT_BILLION}
"""By how they are spoken of."""

DOCUMENT = DocumentShape(words=256, pictures=4, patches=256, codes=1_024)
"""What is generated where latencies are told."""
