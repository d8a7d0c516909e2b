# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Text and images at the same time
#
# Most models that write illustrated documents do it **one piece after another**: all words up to
# a picture, then the picture, then the next words. *OneFlow* works like a building site on which
# all crews are busy at once: every word and every patch of every picture is refined together, in
# a few passes of one transformer.
#
# This notebook tells that story with running code, from the cost of writing in order to a model
# that you train here. It runs from top to bottom on a free Colab (TPU, GPU or CPU) or in a clone,
# in about ten minutes on two CPU cores.
#
# **Time runs from t=0, corrupted, to t=1, clean.**

# %% [markdown]
# ## Install
#
# On Colab this clones the project and installs what it needs; in a clone it does nothing. Give
# the address of your copy where it says so.

# %%
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = os.environ.get("ONEFLOW_REPOSITORY", "https://github.com/OWNER/oneflow_jax")
QUICK = bool(os.environ.get("ONEFLOW_QUICK"))  # A run of a minute, to see that all of it works.


def clone() -> pathlib.Path:
    """The folder of the project: the one we are in, or a fresh copy on a machine of Colab's."""
    here = pathlib.Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "oneflow_jax" / "__init__.py").exists():
            return folder
    folder = here / "oneflow_jax"
    if "OWNER" in REPOSITORY:
        raise SystemExit("Set REPOSITORY above to the address of your copy of the project.")
    subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(folder / "requirements.txt")], check=True)
    # JAX's version may have changed, and what drives the accelerator has to go along.
    if shutil.which("nvidia-smi"):
        subprocess.run([*pip, "--upgrade", "jax[cuda12]>=0.10.2,<0.12"], check=True)
    elif os.environ.get("TPU_ACCELERATOR_TYPE") or pathlib.Path("/dev/accel0").exists():
        subprocess.run([*pip, "--upgrade", "jax[tpu]>=0.10.2,<0.12"], check=True)
    return folder


os.chdir(clone())
sys.path.insert(0, os.getcwd())

# %%
import tempfile
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from etils import epath
from IPython.display import display
from matplotlib import patches as shapes

import oneflow_jax as of
from configs import common, digits, quickstart
from oneflow_jax import evaluate
from oneflow_jax.build import system as system_lib
from oneflow_jax.flows import gaussian
from oneflow_jax.runtime import host, metric_writer, workdir
from oneflow_jax.samplers import ode
from oneflow_jax.training import loop, train_state

metric_writer.setup_logging()
host.configure_malloc()
PAPER, INK, WORDS, PICTURES = "#fffdf8", "#26231d", "#1f6f6b", "#b4430f"
plt.rcParams.update(
    {
        "figure.facecolor": PAPER, "axes.facecolor": PAPER, "text.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110,
    }
)  # fmt: skip
print(f"{len(jax.devices())} x {jax.devices()[0].device_kind}, JAX {jax.__version__}")

# %% [markdown]
# ## 1. What writing in order costs
#
# *Chameleon* writes a token or an image code at a time. *Transfusion* writes a word at a time,
# and then denoises each picture in some passes of its own. No picture begins before the words
# before it are there, so the number of passes grows with the document. A concurrent flow takes
# the same few passes for all of it.
#
# So let us measure. Two networks of equal size, both untrained (time does not depend on what they
# know), fill documents of one to four sections, each with room for 12 tokens and a picture of 9
# patches. `transfusion` writes them a slot at a time, and keeps a cache of what is written;
# `oneflow` asks for all slots in every pass.

# %%
SECTION, SLOTS = "<text:11> <image>", 11 + 1 + 9  # words, their end, patches
SMALL = common.transformer_config(layers=1, width=32, heads=2) if QUICK else {}


def untrained(paradigm: str, slots: int) -> of.Model:
    """A model as it is before its first step, with the tokenizer of the shipped one."""
    folder = epath.Path(tempfile.mkdtemp())
    shutil.copy(of.PRETRAINED / workdir.TOKENIZER, folder)
    config = quickstart.get_config(paradigm)
    config.model.update(SMALL)
    config.data.length = slots
    config.batch = jax.device_count()
    system = system_lib.system(config.lock(), folder)
    return of.Model(system, train_state.init_sharded(system).ema)


def cost(model: of.Model, prompt: str) -> tuple[int, float]:
    """Forward passes, and the least seconds of a few runs, compiling left out."""
    (document,) = model.generate(prompt, seed=1)
    seconds = []
    for _ in range(2 if QUICK else 9):
        began = time.perf_counter()
        model.generate(prompt, seed=1)
        seconds.append(time.perf_counter() - began)
    return document.passes, min(seconds)


COUNTS = (1,) if QUICK else (1, 2, 3, 4)
together = untrained("oneflow", 96)
costs = {
    # Who knows nothing does not know when to stop, and writes until the document is full.
    "transfusion": [cost(untrained("transfusion", 1 + n * SLOTS), "<document>") for n in COUNTS],
    "oneflow": [cost(together, " ".join([SECTION] * n)) for n in COUNTS],
}
print(costs)

# %%
figure, (lanes, passes, seconds) = plt.subplots(
    1, 3, figsize=(12, 3.4), width_ratios=(1.7, 1, 1), layout="constrained"
)
PER_WORD, PER_PICTURE, SECTIONS = 12, 10, 3
total = SECTIONS * (PER_WORD + PER_PICTURE)
for section in range(SECTIONS):
    start = section * (PER_WORD + PER_PICTURE)
    row = 2 * section
    bars = [(start, PER_WORD, WORDS, row), (start + PER_WORD, PER_PICTURE, PICTURES, row + 1)]
    for left, width, color, at in bars:
        lanes.add_patch(shapes.Rectangle((left, at + 0.12), width, 0.76, color=color))
    for color, at in ((WORDS, row), (PICTURES, row + 1)):
        lanes.add_patch(shapes.Rectangle((0, at + 7.12), 17, 0.76, color=color))
lanes.set(xlim=(0, total), ylim=(13.4, -0.4), xlabel="forward passes")
lanes.set_yticks([3, 10], ["one after\nanother", "all\nat once"])
lanes.set_title("three sections: words and pictures", loc="left", fontsize=10)
lanes.tick_params(left=False)
for axes, which, label in ((passes, 0, "forward passes"), (seconds, 1, "seconds a document")):
    for name, color in (("transfusion", INK), ("oneflow", PICTURES)):
        axes.plot(COUNTS, [found[which] for found in costs[name]], "o-", color=color, label=name)
    axes.set(xlabel="sections", xticks=COUNTS, ylim=(0, None))
    axes.set_title(f"measured: {label}", loc="left", fontsize=10)
    axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Passes grow with the document on one side, and stay on the other. **Seconds are another matter**:
# a pass over all slots does more work than a pass over one. On a CPU with so small a model, or with
# large batches, writing in order may well be the faster; on an accelerator with one document at a
# time a pass costs nearly the same whatever its slots, and few passes win. `docs/comparison.md`
# measures both at length.

# %% [markdown]
# ## 2. Flow matching in two dimensions
#
# Take a noise sample $x_0 \sim N(0, I)$ and a data sample $x_1$, and join them by a straight
# line:
#
# $$x_t = (1 - t)\,x_0 + t\,x_1, \qquad v = \frac{dx_t}{dt} = x_1 - x_0.$$
#
# A network learns the velocity at every point and time, by the plainest of losses, $\lVert
# v_\theta(x_t, t) - (x_1 - x_0)\rVert^2$. To generate, start from noise and follow it: an
# ordinary differential equation. Both functions below are the project's own: the path is
# `flows/gaussian.py`, the solver `samplers/ode.py` with diffrax.


# %%
def moons(key: jax.Array, count: int) -> jax.Array:
    """Points of two interlocking half circles, `[count 2]`."""
    angle, noise, which = jax.random.split(key, 3)
    theta = jnp.pi * jax.random.uniform(angle, (count, 1))
    upper = jnp.concatenate([jnp.cos(theta) - 0.5, jnp.sin(theta) - 0.25], axis=1)
    lower = jnp.concatenate([0.5 - jnp.cos(theta), 0.25 - jnp.sin(theta)], axis=1)
    points = jnp.where(jax.random.bernoulli(which, shape=(count, 1)), upper, lower)
    return 1.5 * points + 0.06 * jax.random.normal(noise, (count, 2))


class Velocity(nn.Module):
    """v(x, t) by a small network of three layers."""

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        waves = t[:, None] * jnp.pi * jnp.arange(1, 5)
        h = jnp.concatenate([x, jnp.sin(waves), jnp.cos(waves)], axis=1)
        for _ in range(3):
            h = nn.gelu(nn.Dense(128)(h))
        return nn.Dense(2)(h)


network = Velocity()
optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3_000))
params = network.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1))


@jax.jit
def learn(params: dict, memory: optax.OptState, key: jax.Array) -> tuple:
    """One step on 512 fresh pairs of noise and data."""
    of_data, of_noise, of_time = jax.random.split(key, 3)
    x_1, x_0 = moons(of_data, 512), jax.random.normal(of_noise, (512, 2))
    t = jax.random.uniform(of_time, (512,))
    x_t = gaussian.interpolate(x_0, x_1, t)

    def loss(params: dict) -> jax.Array:
        return jnp.mean((network.apply(params, x_t, t) - (x_1 - x_0)) ** 2)

    value, slope = jax.value_and_grad(loss)(params)
    change, memory = optimizer.update(slope, memory)
    return optax.apply_updates(params, change), memory, value


memory = optimizer.init(params)
for step in range(300 if QUICK else 3_000):
    params, memory, value = learn(params, memory, jax.random.fold_in(jax.random.key(1), step))
print(f"loss {value:.3f}: it cannot be 0, since many lines cross at each point")


# %%
def field(t: jax.Array, x: jax.Array) -> jax.Array:
    """dx/dt of all points at one time."""
    return network.apply(params, x, jnp.full(len(x), t))


def follow(steps: int, count: int = 1_500) -> tuple[np.ndarray, np.ndarray]:
    """Times, and where the points are at each of them, `[T count 2]`, by Euler's method."""
    schedule = ode.make_schedule("euler", steps)
    start = jax.random.normal(jax.random.key(2), (count, 2))
    solution = jax.jit(lambda x: ode.solve(field, x, schedule, return_trajectory=True))(start)
    # The last interval is closed apart, as everywhere in the project.
    end = solution.last + (1 - schedule.times[-1]) * field(schedule.times[-1], solution.last)
    return np.array([*solution.times, 1.0]), np.concatenate([solution.path, end[None]])


times, path = follow(64)
figure, cells = plt.subplots(1, 6, figsize=(13, 2.5), layout="constrained")
for axes, t in zip(cells, (0, 0.25, 0.5, 0.75, 1), strict=False):
    at = np.argmin(np.abs(times - t))
    axes.scatter(*path[at].T, s=2, color=PICTURES, alpha=0.5, linewidths=0)
    axes.set_title(f"t = {t}", fontsize=10)
cells[5].plot(path[:, :40, 0], path[:, :40, 1], color=WORDS, linewidth=0.7)
cells[5].scatter(*path[-1, :40].T, s=9, color=PICTURES, zorder=3)
cells[5].set_title("40 ways from noise to data", fontsize=10)
for axes in cells:
    axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# The ways are nearly straight, so that few steps suffice:

# %%
MANY = (1, 32) if QUICK else (1, 2, 4, 8, 32)
figure, cells = plt.subplots(1, len(MANY), figsize=(13, 2.9), layout="constrained")
for axes, steps in zip(cells, MANY, strict=True):
    axes.scatter(*follow(steps)[1][-1].T, s=2, color=PICTURES, alpha=0.5, linewidths=0)
    axes.set_title(f"{steps} step{'s' if steps > 1 else ''}", fontsize=10)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# ## 3. The edit flow on a document
#
# Now a whole document takes the part of the point. A picture is a row of patches, each a vector.
# A word becomes a point too: its row in a table of token vectors. So a slot may be *half this
# word, half that one* while the picture beside it makes up its mind. A corrupted document is
# masked words and noisy patches:
#
# | | clean, $x_1$ | corrupted, $x_0$ |
# |---|---|---|
# | word | its token's vector | the mask's vector, and noise |
# | patch | its pixels | noise |
#
# What is given (in green) stays clean; everything else flows together. The model comes with the
# project; it knows 64 emoji and their names (`docs/shipped.md`). **Drag the slider.**
#
# The seed below was chosen: of the first 14, four give a whole sentence over two pictures. Words
# that are all settled at once must agree with one another, which is learned late. One picture
# alone, or a form that is given, comes out well.

# %%
model = of.load(of.PRETRAINED)
print(model)
moments = list(model.stream("<text> <image> and <text> <image>", steps=9, seed=7))
of.TrajectoryViewer(moments)

# %% [markdown]
# The same as a strip, for pages on which nothing moves. Above is the picture as it stands, below
# what the network expects it to become; words are still hidden where it is not sure of them.


# %%
def strip(moments: list[of.SamplingStep], columns: int = 5) -> None:
    """Some states of a document side by side."""
    chosen = [moments[round(n * (len(moments) - 1) / (columns - 1))] for n in range(columns)]
    count = len(chosen[-1].noisy)
    _, cells = plt.subplots(
        2, columns * count, figsize=(2.6 * columns, 3.2), layout="constrained", squeeze=False
    )
    for n, state in enumerate(chosen):
        for m in range(count):
            cells[0, n * count + m].imshow(state.noisy[m])
            cells[1, n * count + m].imshow(state.document.images[m])
        words = "".join(
            word.text if word.given or word.certainty > 0.5 else " ▒" for word in state.words
        )
        head = cells[0, n * count]
        head.set_title(f"t = {state.t:.2f}", fontsize=10, loc="left", color=PICTURES)
        cells[1, n * count].set_xlabel(_lines(words, 22), fontsize=9, loc="left")
    for axes in cells.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    plt.show()


def _lines(words: str, width: int) -> str:
    rows = [""]
    for word in words.split():
        if len(rows[-1]) + len(word) > width:
            rows.append("")
        rows[-1] += f"{word} "
    return "\n".join(rows)


strip(moments)

# %% [markdown]
# One model, and any part of a document may be given. Drawing, naming, filling a hole, and making
# something from nothing are one and the same program:

# %%
(tiger,) = model.generate("a picture of a tiger: <image>", seed=1)
picture = tiger.images[0]
tasks = {
    "words to picture": ["a picture of a fox:", of.IMAGE],
    "picture to words": [picture, of.TEXT],
    "a hole between": ["a picture of", of.text(3), picture],
    "from nothing": [of.TEXT, of.IMAGE],
}
for name, prompt in tasks.items():
    (document,) = model.generate(prompt, seed=5)
    print(f"{name}, {document.passes} passes:")
    display(document)

# %% [markdown]
# ## 4. Train a small model
#
# 1,797 real handwritten digits of 8 x 8 pixels, each with a caption in one of four forms
# ("someone wrote the numeral seven here"), come with scikit-learn. `configs/digits.py` is the
# configuration; here its training is cut short. The loss has two terms: cross-entropy of the
# hidden words, and squared error of the pictures' velocity. (One squared error for everything, as
# the method is often printed, lets the learned word vectors collapse: `docs/oneflow.md` shows it
# fail.)

# %%
RUN = epath.Path("runs/notebook-quick" if QUICK else "runs/notebook")
config = digits.get_config()
config.name = "notebook"
config.model.update(SMALL)
config.steps = 30 if QUICK else 1_500
config.logging.every = config.steps // 30
config.checkpoint.every = config.evaluation.every = config.steps
config.evaluation.passes = (4,) if QUICK else (1, 2, 4, 8, 16)
config.evaluation.samples = 40 if QUICK else 200
config.sampling.steps = 5
# A batch must divide among the devices, however many there are.
config.batch = config.evaluation.batch = -(-64 // jax.device_count()) * jax.device_count()
if QUICK:
    shutil.rmtree(RUN, ignore_errors=True)

config.lock()
with workdir.lock(RUN):
    workdir.check_config(RUN, config)
    system = system_lib.system(config, RUN)
    workdir.save_config(RUN, config)
    loop.run(system, RUN)

# %%
curves = metric_writer.read_curves(RUN / workdir.LOGS, ["train/text", "train/image"])
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for (name, points), color in zip(curves.items(), (WORDS, PICTURES), strict=True):
    axes.plot(*zip(*points, strict=True), color=color, label=name.removeprefix("train/"))
axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 5. Load it, and sample everything
#
# The folder of a run is all that `of.load` wants: your own checkpoints are loaded like this, too.
# Pictures are drawn well before they are named well: of this configuration's training one document
# in twenty asks for the name of a given picture.

# %%
mine = of.load(RUN)
made = mine.generate("<text> <image>", samples=16, seed=0)
figure, cells = plt.subplots(2, 8, figsize=(12, 3.6), layout="constrained")
for axes, document in zip(cells.flat, made, strict=True):
    axes.imshow(document.images[0], cmap="gray")
    axes.set_title(_lines(document.text, 14), fontsize=8)
    axes.set(xticks=[], yticks=[])
plt.suptitle("words and pictures from nothing", x=0.01, ha="left", fontsize=10)
plt.show()

# %%
asked = [f"a drawing of the digit {name} <image>" for name in ("zero", "three", "seven", "nine")]
drawn = mine.generate_batch(asked, seed=2)
named = mine.generate_batch([[of.TEXT, document.images[0]] for document in drawn], seed=2)
figure, cells = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for axes, prompt, there, back in zip(cells, asked, drawn, named, strict=True):
    axes.imshow(there.images[0])
    read = _lines(f"read back: {back.text}", 24)
    axes.set_title(f"asked: {prompt.split()[-2]}\n{read}", fontsize=8)
    axes.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 6. How many steps?
#
# The number of forward passes is *the* lever on speed: 8 in place of 32 is four times as fast.
# `valid` is the share of captions made from nothing that are one of the data's 40, word for word;
# `match` the share of those whose picture a classifier reads as the digit that they name;
# `variety` how many of the 40 come. (The whole configuration trains twice as long and gets
# further: `docs/passes.md`.)

# %%
with workdir.lock(RUN):
    figures = evaluate.run(system, RUN)
curves = evaluate.metrics_by_nfe(figures)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, color in (("valid", WORDS), ("match", PICTURES), ("variety", INK)):
    if name in curves:
        axes.plot(*zip(*curves[name], strict=True), "o-", color=color, label=name)
axes.set_xscale("log", base=2)
axes.set(xlabel="forward passes", ylabel="share", ylim=(0, 1.02))
axes.set_xticks(config.evaluation.passes, config.evaluation.passes)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The shipped model, on one document:

# %%
MANY = (1, 9) if QUICK else (1, 2, 3, 5, 9)
figure, cells = plt.subplots(1, len(MANY), figsize=(11, 2.6), layout="constrained")
for axes, steps in zip(cells, MANY, strict=True):
    (document,) = model.generate("<text> <image>", steps=steps, seed=4)
    axes.imshow(document.images[0])
    axes.set_title(f"passes: {document.passes}\n{_lines(document.text, 20)}", fontsize=9)
    axes.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 7. Many devices
#
# What was called `pjit` is `jax.jit` over a named mesh today. A mesh has axes; parameters and
# batches say by name along which of them they are cut; XLA adds the communication. On a TPU slice
# this is all that changes, in a configuration: `config.mesh.fsdp = 4`. Where there is one device
# only, eight are imitated in a process of its own.

# %%
SHOW = """
import jax
from oneflow_jax.runtime import sharding

count = len(jax.devices())
two = 2 if count % 2 == 0 else 1
mesh = sharding.make_mesh({"data": count // two, "tensor": two})
rules = dict(sharding.RULES)
batch = jax.device_put(jax.numpy.zeros((64, 96)), sharding.batch_sharding(mesh))
print("a batch, 64 rows of 96 slots: rows over 'data'")
jax.debug.visualize_array_sharding(batch)
hidden = jax.sharding.NamedSharding(mesh, jax.P(rules["width"], rules["hidden"]))
weights = jax.device_put(jax.numpy.zeros((128, 384)), hidden)
print("a matrix of the network, 128 x 384: hidden width over 'tensor'")
jax.debug.visualize_array_sharding(weights)
"""
if len(jax.devices()) > 1:
    exec(SHOW)
else:
    imitated = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", SHOW]
    told = subprocess.run(
        command, env=os.environ | imitated, capture_output=True, text=True, check=False
    )
    print(told.stdout or told.stderr)

# %% [markdown]
# ## From here
#
# - Your own checkpoint: `of.load("runs/mine")`; from a bucket, `of.load("gs://...")`.
# - A page to play with: `make demo`.
# - All seven paradigms, with equations: `docs/oneflow.md` and its neighbors; side by side:
#   `docs/comparison.md`.
# - A TPU pod from first to last: `launch/README.md`.
#
# Emoji drawings by OpenMoji, CC BY-SA 4.0; digit scans from scikit-learn.
