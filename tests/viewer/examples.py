"""Small stories for the viewer's tests: masks lift, noise clears, words are inserted; and what
a comparison of paradigms may have found.
"""

import itertools

import numpy as np

from oneflow_jax.compare import page
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.viewer import trajectory

STEPS = 6
CLEAN = {"red": (220, 40, 30), "blue": (30, 60, 210)}


def square(color, size=8):
    """A white picture `[size size 3]` with a colored square in it."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = CLEAN[color]
    return pixels


def noised(pixels, t, seed):
    noise = np.random.default_rng(seed).integers(0, 256, pixels.shape)
    return ((1 - t) * noise + t * pixels).astype(np.uint8)


def clocks(steps=STEPS):
    return [step / steps for step in range(steps + 1)]


def masked_story(title="masked", steps=STEPS, text=("A", " red", " square")):
    """Words come out of their masks one by one, beside one picture; guesses start wrong."""
    clean = square("red")
    frames = []
    for t in clocks(steps):
        words = tuple(
            trajectory.Word(i, word if t > 0.4 else " perhaps", min(1.0, t * (1.6 - 0.3 * i)))
            for i, word in enumerate(text)
        )
        picture = trajectory.Picture(1, noised(clean, t, 0), noised(clean, t**0.5, 1), t)
        frames.append(trajectory.Frame(t, (trajectory.TextRun(0, words, t), picture)))
    return trajectory.Story(title, "draw a square", tuple(frames))


def given_story():
    """The picture is given, the words are not, except for the first."""
    picture = trajectory.Picture(0, square("blue"), None, 1.0, given=True)
    frames = []
    for t in clocks():
        words = (trajectory.Word(0, "Blue", 1.0, given=True), trajectory.Word(1, " it is", t))
        frames.append(trajectory.Frame(t, (picture, trajectory.TextRun(1, words, t))))
    return trajectory.Story("given", "", tuple(frames))


def revised_story():
    """With mistakes: one word is replaced, one is taken out, and the picture is made anew."""
    a, cat, cow, too = (
        trajectory.Word(key, text, 1.0)
        for key, text in ((1, " a"), (2, " cat"), (2, " cow"), (3, " too"))
    )
    wrong = trajectory.Picture(9, square("red"), None, 1.0)
    begun = trajectory.Picture(9, noised(square("blue"), 0.1, 3), square("blue"), 0.1)
    done = trajectory.Picture(9, square("blue"), None, 1.0)
    return trajectory.Story(
        "revised",
        "a cat too <image>",
        tuple(
            trajectory.Frame(t, (trajectory.TextRun(-1, words, t), picture))
            for t, words, picture in (
                (0.8, (a, cat, too), wrong),
                (0.9, (a, cow, too), begun),
                (1.0, (a, cow), done),
            )
        ),
    )


def edited_story():
    """Empty; then two words; then a third between them; then a picture splits the run."""
    here, there, now = (
        trajectory.Word(i, text, 1.0) for i, text in enumerate((" here", " there", " now"))
    )
    picture = trajectory.Picture(9, noised(square("red"), 0.2, 2), None, 0.2)
    done = trajectory.Picture(9, square("red"), None, 1.0)
    return trajectory.Story(
        "edited",
        "",
        (
            trajectory.Frame(0.0, ()),
            trajectory.Frame(0.25, (trajectory.TextRun(0, (here, there), 0.25),)),
            trajectory.Frame(0.5, (trajectory.TextRun(0, (here, now, there), 0.5),)),
            trajectory.Frame(
                0.75,
                (
                    trajectory.TextRun(0, (here, now), 0.75),
                    picture,
                    trajectory.TextRun(1, (there,), 0.75),
                ),
            ),
            trajectory.Frame(
                1.0,
                (
                    trajectory.TextRun(0, (here, now), 1.0),
                    done,
                    trajectory.TextRun(1, (there,), 1.0),
                ),
            ),
        ),
    )


FAMILIES = {
    "chameleon": ("Chameleon", "Sequential AR", "AR text and image codes"),
    "dalle": ("DALL-E", "Sequential AR", "AR text, then image codes"),
    "transfusion": ("Transfusion", "AR + flow", "AR text + flow images"),
    "lmfusion": ("LMFusion", "AR + flow", "AR text (frozen) + flow images"),
    "oneflow": ("OneFlow", "Concurrent flow", "one flow of text and images"),
    "mask_flow": ("Mask flow", "Concurrent flow", "masked text + flow images"),
    "edit_flow": ("Edit flow", "Concurrent flow", "inserted text + flow images"),
}
LENGTHS = {"chameleon": 140, "dalle": 128, "transfusion": 75, "lmfusion": 75}
"""Passes for one document of those that write one thing after another; 16 of the others."""


def measured(value, spread=0.02):
    return page.Figure(value, value - spread * abs(value), value + spread * abs(value))


def timeline(name):
    """Three pictures with words before each: in turn, or at the same time."""
    labels = ("three animals: a fox", "", "a tiger", "", "and an owl", "")
    kinds = ("text", "image") * 3
    if name not in LENGTHS:
        ends = [(0, 16)] * 6
        if name == "edit_flow":
            ends = [(0, 12), (1, 14), (0, 12), (4, 15), (2, 12), (6, 16)]
    else:
        marks = np.cumsum([0, 6, 36, 3, 36, 3, 36]) * LENGTHS[name] / 120
        ends = [(float(a), float(b)) for a, b in itertools.pairwise(marks)]
        if name == "dalle":  # All words come first.
            marks = np.cumsum([0, 6, 3, 3, 38, 39, 39])
            order = [0, 3, 1, 4, 2, 5]
            ends = [(float(marks[n]), float(marks[n + 1])) for n in order]
    bars = [
        page.Bar(kind, label or f"picture {at // 2 + 1}", *between)
        for at, (kind, label, between) in enumerate(zip(kinds, labels, ends, strict=True))
    ]
    passes = max(end for _, end in ends)
    return page.Timeline(passes, passes * 0.0123, bars)


def sample(seed):
    """A finished document of three pictures."""
    clean = [square(color) for color in ("red", "blue", "red")]
    shown = [Image(noised(pixels, 0.8, seed + n)) for n, pixels in enumerate(clean)]
    words = [Text("three squares: a red one"), Text("a blue one"), Text("and a red one")]
    return Document(tuple(part for pair in zip(words, shown, strict=True) for part in pair))


def contestant(name, at):
    """One paradigm: the later in the list, the better, except for the figures of pictures."""
    title, family, mode = FAMILIES[name]
    passes = LENGTHS.get(name, 16)
    good = 0.62 + 0.04 * at
    figures = {
        "passes": page.Figure(passes, passes, passes),
        "seconds_per_document": measured(passes * 0.0123),
        "seconds_per_document_8": measured(passes * 0.0041),
        "kid": page.Figure(0.031 - 0.004 * at, 0.0275 - 0.004 * at, 0.0345 - 0.004 * at),
        "fd": measured(60 - 4.2 * at, 0.05),
        "precision": measured(0.71 + 0.01 * at),
        "recall": measured(0.52 + 0.02 * at, 0.05),
        "text_valid": measured(0.93 + 0.01 * at, 0.01),
        "interleaved": measured(good),
        **{part: measured(good + 0.05) for part in ("shown", "counted", "ordered", "agreed")},
        "varied": measured(0.9, 0.03),
        "text_to_image": measured(0.8 + 0.01 * at),
        "image_to_text": measured(0.95 - 0.01 * at),
        "joint": measured(0.7 + 0.03 * at),
        "train_flops": page.Figure(1.2e15, 1.2e15, 1.2e15),
        "train_seconds": measured(3100 + 57 * at),
        "parameters": page.Figure(3_145_728 + at, 3_145_728 + at, 3_145_728 + at),
    }
    absent = {}
    if name == "dalle":
        del figures["image_to_text"]
        absent["image_to_text"] = "words come before pictures, so it cannot caption"
    asked = [4, 8, 16, 32, 64] if name not in LENGTHS else [passes]
    if family == "AR + flow":
        asked = [passes - 60, passes - 30, passes, passes + 60]
    curves = {
        figure: [
            page.Point(n, n * 0.0123, end * (1 - away * 8 / n)) for n in sorted(asked)
        ]
        for figure, end, away in (
            ("kid", 0.03 - 0.004 * at, -2), ("fd", 60 - 4.2 * at, -8), ("interleaved", good, 0.4),
            ("text_valid", 0.93 + 0.01 * at, 0.1),
        )
    }  # fmt: skip
    return page.Contestant(
        name=name,
        title=title,
        family=family,
        mode=mode,
        figures=figures,
        absent=absent,
        curves=curves,
        samples=[sample(10 * at + n) for n in range(4)],
        timeline=timeline(name),
    )


def compared(names=tuple(FAMILIES), **changes):
    """A comparison; no number in it was measured."""
    contestants = [contestant(name, at) for at, name in enumerate(names)]
    given = {
        "contestants": contestants,
        "bounds": {
            "real data": {
                "kid": measured(0.0002), "fd": measured(4.1), "interleaved": measured(0.97),
                "text_valid": measured(1.0, 0),
            },
            "shuffled": {
                "kid": measured(0.0003), "fd": measured(4.2), "interleaved": measured(0.21),
                "text_valid": measured(1.0, 0),
            },
        },
        "latency": [
            page.Latency(one.title, batch, measured(one.figures["passes"].value * cost))
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
        "pictures": 2000,
        "budget": 1.2e15,
        "seeds": (0, 1, 2),
        "machine": {"cpu": "EPYC, 2 cores", "jax": "0.10.2"},
        "data": {"documents": "10,000 of emoji, 64 names, 24 pixels"},
        "attribution": ["Pictures: OpenMoji, CC BY-SA 4.0"],
    }  # fmt: skip
    return page.Comparison(**given | changes)
