"""The small model that comes with the project: weights, tokenizer, configuration.

`of.load(of.PRETRAINED)` reads it; docs/shipped.md says how it was trained and how good it is.
"""

import pathlib

PRETRAINED = pathlib.Path(__file__).parent
"""Its folder, which `load` and `--workdir` of `--mode=sample` take like that of a run."""
