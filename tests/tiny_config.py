"""The smallest configuration, for command line tests: `--config=tests/tiny_config.py`.

Another paradigm: `--config=tests/tiny_config.py:edit_flow`.
"""

from configs import common


def get_config(paradigm="oneflow"):
    config = common.document_model_config("tiny")
    common.set_paradigm(config, paradigm)
    config = common.shrink_for_debugging(config)
    config.steps = 6
    config.checkpoint.max_to_keep = 3
    config.sampling.update({"solver": "euler", "time_grid": "uniform"})
    return config
