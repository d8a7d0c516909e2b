"""The small model that comes with the project: weights, tokenizer, configuration.

`of.load(of.SHIPPED)` reads it; docs/shipped.md says how it was trained and how good it is.
"""

import pathlib

SHIPPED = pathlib.Path(__file__).parent
"""Its folder, which `load` and `--workdir` of `--mode=sample` take like that of a run."""
