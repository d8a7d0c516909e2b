import numpy as np
from PIL import Image, ImageColor

from oneflow_jax.viewer import plots

CURVES = {"oneflow": [(1, 0.1), (4, 0.7), (16, 0.9)], "mask_flow": [(1, 0.0), (16, 0.8)]}


def test_each_curve_is_drawn_in_its_own_color(tmp_path):
    for count in (1, 2):
        path = tmp_path / "new" / f"{count}.png"
        plots.plot_lines(path, dict(list(CURVES.items())[:count]), "Quality")
        image = np.asarray(Image.open(path).convert("RGB"))
        is_drawn = [
            (image == ImageColor.getrgb(hue)).all(-1).sum() > 200 for hue in plots.COLORS[:2]
        ]
        assert is_drawn == [True, count == 2]
