"""The small model that comes with the project: weights, tokenizer, configuration.

`of.load(of.PRETRAINED)` loads it; docs/shipped.md describes its training and its quality.
"""

import pathlib

PRETRAINED = pathlib.Path(__file__).parent
"""Its folder, which `load` and `--workdir` of `--mode=sample` accept like that of a run."""
