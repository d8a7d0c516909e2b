"""Small stories for the viewer's tests: masks lift, noise clears, words are inserted."""

import numpy as np

from oneflow_jax.viewer import story

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
            story.Word(i, word if t > 0.4 else " perhaps", min(1.0, t * (1.6 - 0.3 * i)))
            for i, word in enumerate(text)
        )
        picture = story.Picture(1, noised(clean, t, 0), noised(clean, t**0.5, 1), t)
        frames.append(story.Frame(t, (story.TextRun(0, words, t), picture)))
    return story.Story(title, "draw a square", tuple(frames))


def given_story():
    """The picture is given, the words are not, except for the first."""
    picture = story.Picture(0, square("blue"), None, 1.0, given=True)
    frames = []
    for t in clocks():
        words = (story.Word(0, "Blue", 1.0, given=True), story.Word(1, " it is", t))
        frames.append(story.Frame(t, (picture, story.TextRun(1, words, t))))
    return story.Story("given", "", tuple(frames))


def revised_story():
    """With mistakes: one word is replaced, one is taken out, and the picture is made anew."""
    a, cat, cow, too = (
        story.Word(key, text, 1.0)
        for key, text in ((1, " a"), (2, " cat"), (2, " cow"), (3, " too"))
    )
    wrong = story.Picture(9, square("red"), None, 1.0)
    begun = story.Picture(9, noised(square("blue"), 0.1, 3), square("blue"), 0.1)
    done = story.Picture(9, square("blue"), None, 1.0)
    return story.Story(
        "revised",
        "a cat too <image>",
        tuple(
            story.Frame(t, (story.TextRun(-1, words, t), picture))
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
        story.Word(i, text, 1.0) for i, text in enumerate((" here", " there", " now"))
    )
    picture = story.Picture(9, noised(square("red"), 0.2, 2), None, 0.2)
    done = story.Picture(9, square("red"), None, 1.0)
    return story.Story(
        "edited",
        "",
        (
            story.Frame(0.0, ()),
            story.Frame(0.25, (story.TextRun(0, (here, there), 0.25),)),
            story.Frame(0.5, (story.TextRun(0, (here, now, there), 0.5),)),
            story.Frame(
                0.75,
                (story.TextRun(0, (here, now), 0.75), picture, story.TextRun(1, (there,), 0.75)),
            ),
            story.Frame(
                1.0, (story.TextRun(0, (here, now), 1.0), done, story.TextRun(1, (there,), 1.0))
            ),
        ),
    )
