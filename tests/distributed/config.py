"""What the processes of these tests train: `--config=tests/distributed/config.py:edit_flow`."""

from tests import tiny_config


def get_config(paradigm="oneflow"):
    config = tiny_config.get_config(paradigm)
    config.model.update({"layers": 1, "unroll": 1})
    config.data.streams = 4
    config.source.documents = 4_000  # More than are read: nobody comes to a second epoch.
    config.evaluation.every = 6
    return config
