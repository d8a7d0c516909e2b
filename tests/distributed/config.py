"""The configuration of distributed tests: `--config=tests/distributed/config.py:edit_flow`."""

from tests import tiny_config


def get_config(paradigm="oneflow"):
    config = tiny_config.get_config(paradigm)
    config.model.update({"layers": 1, "scan_unroll": 1})
    config.data.num_streams = 4
    config.source.documents = 4_000  # A run reads fewer, so no second epoch starts.
    config.evaluation.every = 6
    return config
