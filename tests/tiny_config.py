"""The smallest configuration, for runs by the command line: `--config=tests/tiny_config.py`."""

from configs import common


def get_config():
    config = common.debug(common.base("tiny"))
    config.steps = 6
    config.checkpoint.keep = 3
    config.sampling.update({"solver": "euler", "grid": "uniform"})
    return config
