"""Examples for the viewer's tests: small trajectories, and a comparison with invented values."""

import itertools

import numpy as np

from oneflow_jax.compare import page
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.viewer import trajectory

STEPS = 6
COLORS = {"red": (220, 40, 30), "blue": (30, 60, 210)}


def make_square(color, size=8):
    """Return a white image `[size size 3]` with a colored square."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = COLORS[color]
    return pixels


def add_noise(pixels, t, seed):
    noise = np.random.default_rng(seed).integers(0, 256, pixels.shape)
    return ((1 - t) * noise + t * pixels).astype(np.uint8)


def uniform_times(steps=STEPS):
    return [step / steps for step in range(steps + 1)]


def make_masked_view(title="masked", steps=STEPS, text=("A", " red", " square")):
    """Return a trajectory in which masked text is revealed and one image is generated."""
    clean = make_square("red")
    frames = []
    for t in uniform_times(steps):
        words = tuple(
            trajectory.TokenView(i, word if t > 0.4 else " perhaps", min(1.0, t * (1.6 - 0.3 * i)))
            for i, word in enumerate(text)
        )
        picture = trajectory.ImageView(1, add_noise(clean, t, 0), add_noise(clean, t**0.5, 1), t)
        frames.append(trajectory.Frame(t, (trajectory.TextSpan(0, words, t), picture)))
    return trajectory.TrajectoryView(title, "draw a square", tuple(frames))


def make_given_view():
    """Return a trajectory with a given image and a given first token."""
    picture = trajectory.ImageView(0, make_square("blue"), None, 1.0, given=True)
    frames = []
    for t in uniform_times():
        words = (
            trajectory.TokenView(0, "Blue", 1.0, given=True),
            trajectory.TokenView(1, " it is", t),
        )
        frames.append(trajectory.Frame(t, (picture, trajectory.TextSpan(1, words, t))))
    return trajectory.TrajectoryView("given", "", tuple(frames))


def make_edit_view():
    """Return an editing trajectory: a token is substituted, one deleted, and an image changed."""
    a, cat, cow, too = (
        trajectory.TokenView(key, text, 1.0)
        for key, text in ((1, " a"), (2, " cat"), (2, " cow"), (3, " too"))
    )
    wrong = trajectory.ImageView(9, make_square("red"), None, 1.0)
    noisy = trajectory.ImageView(
        9, add_noise(make_square("blue"), 0.1, 3), make_square("blue"), 0.1
    )
    done = trajectory.ImageView(9, make_square("blue"), None, 1.0)
    return trajectory.TrajectoryView(
        "revised",
        "a cat too <image>",
        tuple(
            trajectory.Frame(t, (trajectory.TextSpan(-1, words, t), picture))
            for t, words, picture in (
                (0.8, (a, cat, too), wrong),
                (0.9, (a, cow, too), noisy),
                (1.0, (a, cow), done),
            )
        ),
    )


def make_insertion_view():
    """Return a trajectory that inserts two tokens, one token between them, and an image."""
    here, there, now = (
        trajectory.TokenView(i, text, 1.0) for i, text in enumerate((" here", " there", " now"))
    )
    picture = trajectory.ImageView(9, add_noise(make_square("red"), 0.2, 2), None, 0.2)
    done = trajectory.ImageView(9, make_square("red"), None, 1.0)
    return trajectory.TrajectoryView(
        "edited",
        "",
        (
            trajectory.Frame(0.0, ()),
            trajectory.Frame(0.25, (trajectory.TextSpan(0, (here, there), 0.25),)),
            trajectory.Frame(0.5, (trajectory.TextSpan(0, (here, now, there), 0.5),)),
            trajectory.Frame(
                0.75,
                (
                    trajectory.TextSpan(0, (here, now), 0.75),
                    picture,
                    trajectory.TextSpan(1, (there,), 0.75),
                ),
            ),
            trajectory.Frame(
                1.0,
                (
                    trajectory.TextSpan(0, (here, now), 1.0),
                    done,
                    trajectory.TextSpan(1, (there,), 1.0),
                ),
            ),
        ),
    )


MODEL_INFO = {
    "chameleon": ("Chameleon", "Sequential AR", "AR text and image codes"),
    "dalle": ("DALL-E", "Sequential AR", "AR text, then image codes"),
    "transfusion": ("Transfusion", "AR + flow", "AR text + flow images"),
    "lmfusion": ("LMFusion", "AR + flow", "AR text (frozen) + flow images"),
    "oneflow": ("OneFlow", "Concurrent flow", "one flow of text and images"),
    "mask_flow": ("Mask flow", "Concurrent flow", "masked text + flow images"),
    "edit_flow": ("Edit flow", "Concurrent flow", "inserted text + flow images"),
}
AUTOREGRESSIVE_NFE = {"chameleon": 140, "dalle": 128, "transfusion": 75, "lmfusion": 75}
"""NFE for one document of autoregressive models; the other models use 16."""


def make_estimate(value, relative_error=0.02):
    return page.Estimate(
        value, value - relative_error * abs(value), value + relative_error * abs(value)
    )


def make_timeline(name):
    """Return a timeline of three texts and images: sequential for autoregressive models only."""
    labels = ("three animals: a fox", "", "a tiger", "", "and an owl", "")
    kinds = ("text", "image") * 3
    if name not in AUTOREGRESSIVE_NFE:
        ends = [(0, 16)] * 6
        if name == "edit_flow":
            ends = [(0, 12), (1, 14), (0, 12), (4, 15), (2, 12), (6, 16)]
    else:
        marks = np.cumsum([0, 6, 36, 3, 36, 3, 36]) * AUTOREGRESSIVE_NFE[name] / 120
        ends = [(float(a), float(b)) for a, b in itertools.pairwise(marks)]
        if name == "dalle":  # All text comes first.
            marks = np.cumsum([0, 6, 3, 3, 38, 39, 39])
            order = [0, 3, 1, 4, 2, 5]
            ends = [(float(marks[n]), float(marks[n + 1])) for n in order]
    bars = [
        page.TimelineBar(kind, label or f"image {at // 2 + 1}", *between)
        for at, (kind, label, between) in enumerate(zip(kinds, labels, ends, strict=True))
    ]
    passes = max(end for _, end in ends)
    return page.Timeline(passes, passes * 0.0123, bars)


def make_sample(seed):
    """Return a finished document of three images."""
    clean = [make_square(color) for color in ("red", "blue", "red")]
    images = [Image(add_noise(pixels, 0.8, seed + n)) for n, pixels in enumerate(clean)]
    words = [Text("three squares: a red one"), Text("a blue one"), Text("and a red one")]
    return Document(tuple(part for pair in zip(words, images, strict=True) for part in pair))


def make_model_result(name, index):
    """Return invented results of a model; most metrics improve with `index`."""
    title, family, mode = MODEL_INFO[name]
    passes = AUTOREGRESSIVE_NFE.get(name, 16)
    good = 0.62 + 0.04 * index
    figures = {
        "nfe": page.Estimate(passes, passes, passes),
        "seconds_per_document": make_estimate(passes * 0.0123),
        "seconds_per_document_8": make_estimate(passes * 0.0041),
        "kid_efficientnet": page.Estimate(
            0.031 - 0.004 * index, 0.0275 - 0.004 * index, 0.0345 - 0.004 * index
        ),
        "fd_efficientnet": make_estimate(60 - 4.2 * index, 0.05),
        "precision": make_estimate(0.71 + 0.01 * index),
        "recall": make_estimate(0.52 + 0.02 * index, 0.05),
        "template_validity": make_estimate(0.93 + 0.01 * index, 0.01),
        "interleaved_score": make_estimate(good),
        **{
            part: make_estimate(good + 0.05)
            for part in (
                "image_name_alignment",
                "count_accuracy",
                "order_accuracy",
                "category_consistency",
            )
        },
        "diversity": make_estimate(0.9, 0.03),
        "text_to_image": make_estimate(0.8 + 0.01 * index),
        "image_to_text": make_estimate(0.95 - 0.01 * index),
        "joint": make_estimate(0.7 + 0.03 * index),
        "train_flops": page.Estimate(1.2e15, 1.2e15, 1.2e15),
        "train_seconds": make_estimate(3100 + 57 * index),
        "parameters": page.Estimate(3_145_728 + index, 3_145_728 + index, 3_145_728 + index),
    }
    absent = {}
    if name == "dalle":
        del figures["image_to_text"]
        absent["image_to_text"] = "text comes before images, so it cannot caption"
    nfes = [4, 8, 16, 32, 64] if name not in AUTOREGRESSIVE_NFE else [passes]
    if family == "AR + flow":
        nfes = [passes - 60, passes - 30, passes, passes + 60]
    curves = {
        figure: [
            page.CurvePoint(n, n * 0.0123, end * (1 - away * 8 / n)) for n in sorted(nfes)
        ]
        for figure, end, away in (
            ("kid_efficientnet", 0.03 - 0.004 * index, -2),
            ("fd_efficientnet", 60 - 4.2 * index, -8),
            ("interleaved_score", good, 0.4),
            ("template_validity", 0.93 + 0.01 * index, 0.1),
        )
    }  # fmt: skip
    return page.ModelResult(
        name=name,
        title=title,
        family=family,
        mode=mode,
        metrics=figures,
        absence_reasons=absent,
        curves=curves,
        samples=[make_sample(10 * index + n) for n in range(4)],
        timeline=make_timeline(name),
    )


def make_comparison(names=tuple(MODEL_INFO), **changes):
    """Return a comparison with invented numbers."""
    contestants = [make_model_result(name, at) for at, name in enumerate(names)]
    fields = {
        "models": contestants,
        "reference_bounds": {
            "real data": {
                "kid_efficientnet": make_estimate(0.0002), "fd_efficientnet": make_estimate(4.1),
                "interleaved_score": make_estimate(0.97),
                "template_validity": make_estimate(1.0, 0),
            },
            "shuffled": {
                "kid_efficientnet": make_estimate(0.0003), "fd_efficientnet": make_estimate(4.2),
                "interleaved_score": make_estimate(0.21),
                "template_validity": make_estimate(1.0, 0),
            },
        },
        "latency": [
            page.LatencyResult(one.title, batch, make_estimate(one.metrics["nfe"].value * cost))
            for one in contestants
            for batch, cost in ((1, 0.0123), (8, 0.033))
        ],
        "roofline": {
            "One forward pass on this machine": [
                ("", "GFLOPs", "GB", "bound by", "reached"),
                ("whole canvas, batch 1", "0.41", "0.012", "memory", "61 %"),
                ("whole canvas, batch 8", "3.28", "0.013", "compute", "72 %"),
                ("one token with a cache, batch 1", "0.006", "0.012", "memory", "38 %"),
            ]
        },
        "notes": ["OneFlow writes the best interleaved documents in the fewest passes."],
        "num_images": 2000,
        "flops_budget": 1.2e15,
        "seeds": (0, 1, 2),
        "machine": {"cpu": "EPYC, 2 cores", "jax": "0.10.2"},
        "data": {"documents": "10,000 of emoji, 64 names, 24 pixels"},
        "attribution": ["Images: OpenMoji, CC BY-SA 4.0"],
    }  # fmt: skip
    return page.ComparisonResult(**fields | changes)
