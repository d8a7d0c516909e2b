import numpy as np
from PIL import Image, ImageColor

from oneflow_jax.viewer import memory_bars, plots


def test_bar_lengths_are_proportional_to_memory(tmp_path):
    """Check the ratio of two bars (1 : 3), and that a limit is drawn."""
    path = tmp_path / "memory.png"
    rows = {"v4-8": {"parameters": 4.0, "temporaries": 12.0}}
    memory_bars.plot_bars(path, rows, {"v4-8": 32.0}, "A small one")
    image = np.asarray(Image.open(path).convert("RGB"))
    row = image[image.shape[0] // 3]
    first, second = ((row == ImageColor.getrgb(hue)).all(-1).sum() for hue in plots.COLORS[:2])
    assert 2.9 < second / first < 3.1
    memory_bars.plot_bars(path, rows, {"v4-8": None}, "A small one")
    without = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape == without.shape
    assert (image != without).any()
