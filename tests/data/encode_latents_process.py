"""One of several processes that encode a data set together: arguments `N OF PORT FOLDER`.

test_encode_latents runs it in subprocesses, with the folder as the last argument.
"""

import sys

import jax
from etils import epath


def main(number: int, count: int, port: int, folder: str) -> None:
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"localhost:{port}", count, number)
    from oneflow_jax.data import encode_latents, latents, toy
    from tests.codecs.autoencoder import small_models

    latents.SHARD_SIZE = 8
    splits = {"train": lambda: toy.Toy(documents=40), "heldout": lambda: toy.Toy(documents=12)}
    stored = encode_latents.LatentDataset(
        epath.Path(folder), small_models.random_autoencoder(small_models.KL), splits, pixels=4
    )
    index = stored.build_index()
    print(jax.process_index(), jax.process_count(), index.fingerprint, index.mean[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
