"""The configurations: in a checkout, the files of its folder `configs/`.

An installed package has those files in this folder, and not this file (setup.py).
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]
