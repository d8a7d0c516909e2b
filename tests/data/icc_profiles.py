"""Small ICC profiles, and the sRGB values that the ICC specification gives for their colors."""

import struct

import numpy as np

XY_WHITE = (0.3127, 0.3290)
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def rgb_profile(primaries, gamma):
    """Return an RGB profile with these three primaries and this gamma."""
    columns = _to_xyz_d50(primaries).T
    tags = {
        name: _xyz(column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", b"mntr", tags)


def grey_profile(gamma):
    """Return a profile for gray images with this gamma."""
    return _profile(b"GRAY", b"mntr", {b"kTRC": _curve(gamma)})


def cmyk_profile():
    """Return a printer's profile in which cyan ink is white, and black ink is black.

    Yellow and magenta ink have no effect. So its colors differ from those that Pillow computes
    without a profile.
    """
    corners = np.array(
        [(1 - k) * 255 for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    )
    lab = np.stack([corners, np.full(16, 128), np.full(16, 128)], -1).astype(np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + lab.tobytes() + ramp * 3
    return _profile(b"CMYK", b"prtr", {b"A2B0": table}, connection=b"Lab ")


def expected_srgb(color, primaries, gamma):
    """Compute the sRGB color of an RGB color whose profile has these primaries.

    `gamma` is an exponent, or a function that converts encoded values in [0, 1] to
    linear light.
    """
    values = np.array(color) / 255
    linear = gamma(values) if callable(gamma) else values**gamma
    other = np.linalg.solve(_to_xyz_d50(SRGB), _to_xyz_d50(primaries) @ linear).clip(0, 1)
    return encode_srgb(other)


def encode_srgb(linear):
    """Return the 8-bit sRGB values of linear light."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(int)


def _to_xyz_d50(primaries):
    def xyz(x, y):
        return np.array([x / y, 1, (1 - x - y) / y])

    columns = np.stack([xyz(*each) for each in primaries], -1)
    white = xyz(*XY_WHITE)
    matrix = columns * np.linalg.solve(columns, white)
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ matrix


def _s15(values):
    return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))


def _xyz(values):
    return b"XYZ \0\0\0\0" + _s15(values)


def _curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"


def _profile(space, kind, tags, connection=b"XYZ "):
    text = b"test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0" + text,
        b"wtpt": _xyz(_D50),
    } | tags
    start, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI", start + len(body), 0x02400000) + kind + space + connection
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15(_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body
