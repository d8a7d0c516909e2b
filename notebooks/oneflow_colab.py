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
# Most models that write illustrated documents work **sequentially**: all text up to an image,
# then the image, then the next text. *OneFlow* refines every token and every image patch of the
# document together, in a few forward passes of one transformer.
#
# This notebook explains the method with running code, from the cost of sequential generation to a
# model that you train here. It runs from top to bottom on a free Colab (TPU, GPU or CPU) or in a
# clone, in about ten minutes on two CPU cores.
#
# **Time runs from t=0, corrupted, to t=1, clean.**

# %% [markdown]
# ## Install
#
# On Colab, this cell clones the project and installs its requirements; in a clone it does
# nothing. Set `REPOSITORY` to the address of your copy.

# %%
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = os.environ.get("ONEFLOW_REPOSITORY", "https://github.com/OWNER/oneflow_jax")
QUICK = bool(os.environ.get("ONEFLOW_QUICK"))  # Tiny sizes: checks in a minute that all cells work.


def clone() -> pathlib.Path:
    """Return the folder of the project: the clone around us, or a new clone on Colab."""
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
    # The requirements may have changed JAX's version; its accelerator plugin must match.
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
from oneflow_jax import evaluate
from oneflow_jax.build import system as system_lib
from oneflow_jax.configs import common, digits, quickstart
from oneflow_jax.flows import gaussian
from oneflow_jax.runtime import host, metric_writer, run_lock, workdir
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
# ## 1. The cost of sequential generation
#
# *Chameleon* writes one text token or image code per forward pass. *Transfusion* writes one text
# token per pass and then denoises each image in several passes of its own. An image can begin only
# when the text before it is complete, so the number of forward passes (NFE) grows with the
# document. A concurrent flow takes the same small number of passes for the whole document.
#
# The next cell measures this. Two untrained networks of equal size (the time does not depend on
# the parameters) generate documents of one to four sections, each with room for 12 tokens and an
# image of 9 patches. `transfusion` writes them slot by slot with a KV cache; `oneflow` evaluates
# all slots in every pass.

# %%
SECTION, SLOTS = "<text:11> <image>", 11 + 1 + 9  # text tokens, end token, patches
SMALL = common.transformer_config(layers=1, width=32, heads=2) if QUICK else {}


def untrained(paradigm: str, slots: int) -> of.Model:
    """Return an untrained model with the tokenizer of the shipped one."""
    folder = epath.Path(tempfile.mkdtemp())
    shutil.copy(of.PRETRAINED / workdir.TOKENIZER, folder)
    config = quickstart.get_config(paradigm)
    config.model.update(SMALL)
    config.data.sequence_length = slots
    config.batch_size = jax.device_count()
    system = system_lib.system(config.lock(), folder)
    return of.Model(system, train_state.init_sharded(system).ema)


def cost(model: of.Model, prompt: str) -> tuple[int, float]:
    """Return the NFE and the minimum seconds of several runs, without compilation."""
    (document,) = model.generate(prompt, seed=1)
    seconds = []
    for _ in range(2 if QUICK else 9):
        began = time.perf_counter()
        model.generate(prompt, seed=1)
        seconds.append(time.perf_counter() - began)
    return document.nfe, min(seconds)


COUNTS = (1,) if QUICK else (1, 2, 3, 4)
together = untrained("oneflow", 96)
costs = {
    # An untrained model does not end its document, and writes until the canvas is full.
    "transfusion": [cost(untrained("transfusion", 1 + n * SLOTS), "<document>") for n in COUNTS],
    "oneflow": [cost(together, " ".join([SECTION] * n)) for n in COUNTS],
}
print(costs)

# %%
figure, (lanes, passes, seconds) = plt.subplots(
    1, 3, figsize=(12, 3.4), width_ratios=(1.7, 1, 1), layout="constrained"
)
PER_WORD, PER_PICTURE, SECTIONS = 12, 10, 3
together_nfe, _ = costs["oneflow"][0]
total = SECTIONS * (PER_WORD + PER_PICTURE)
for section in range(SECTIONS):
    start = section * (PER_WORD + PER_PICTURE)
    row = 2 * section
    bars = [(start, PER_WORD, WORDS, row), (start + PER_WORD, PER_PICTURE, PICTURES, row + 1)]
    for left, width, color, at in bars:
        lanes.add_patch(shapes.Rectangle((left, at + 0.12), width, 0.76, color=color))
    for color, at in ((WORDS, row), (PICTURES, row + 1)):
        lanes.add_patch(shapes.Rectangle((0, at + 7.12), together_nfe, 0.76, color=color))
lanes.set(xlim=(0, total), ylim=(13.4, -0.4), xlabel="forward passes")
lanes.set_yticks([3, 10], ["sequential", "concurrent"])
lanes.set_title("three sections: text and images", loc="left", fontsize=10)
lanes.tick_params(left=False)
for axes, which, label in ((passes, 0, "forward passes"), (seconds, 1, "seconds per document")):
    for name, color in (("transfusion", INK), ("oneflow", PICTURES)):
        axes.plot(COUNTS, [found[which] for found in costs[name]], "o-", color=color, label=name)
    axes.set(xlabel="sections", xticks=COUNTS, ylim=(0, None))
    axes.set_title(f"measured: {label}", loc="left", fontsize=10)
    axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The NFE grows with the document for `transfusion`, and is constant for `oneflow`. **Seconds are
# different**: a pass over all slots costs more than a pass over one slot. On a CPU with a small
# model, or with large batches, sequential generation may be faster. On an accelerator with one
# document at a time, a pass costs nearly the same for any number of slots, and few passes are
# faster. `docs/comparison.md` measures both in detail.

# %% [markdown]
# ## 2. Flow matching in two dimensions
#
# Take a noise sample $x_0 \sim N(0, I)$ and a data sample $x_1$, and connect them by a straight
# line:
#
# $$x_t = (1 - t)\,x_0 + t\,x_1, \qquad v = \frac{dx_t}{dt} = x_1 - x_0.$$
#
# A network learns the velocity at every point and time with a squared error, $\lVert
# v_\theta(x_t, t) - (x_1 - x_0)\rVert^2$. To generate, start from noise and follow the velocity:
# this solves an ordinary differential equation. Both functions below are the project's own: the
# path is `flows/gaussian.py`, and the solver is `samplers/ode.py` with diffrax.


# %%
def moons(key: jax.Array, count: int) -> jax.Array:
    """Sample points of two interlocking half circles, `[count 2]`."""
    angle, noise, which = jax.random.split(key, 3)
    theta = jnp.pi * jax.random.uniform(angle, (count, 1))
    upper = jnp.concatenate([jnp.cos(theta) - 0.5, jnp.sin(theta) - 0.25], axis=1)
    lower = jnp.concatenate([0.5 - jnp.cos(theta), 0.25 - jnp.sin(theta)], axis=1)
    points = jnp.where(jax.random.bernoulli(which, shape=(count, 1)), upper, lower)
    return 1.5 * points + 0.06 * jax.random.normal(noise, (count, 2))


class Velocity(nn.Module):
    """A small network for v(x, t) with three hidden layers."""

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
    """Take one training step on 512 new pairs of noise and data."""
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
print(f"loss {value:.3f}: it cannot reach 0, because many lines cross at each point")


# %%
def field(t: jax.Array, x: jax.Array) -> jax.Array:
    """Return dx/dt of all points at one time."""
    return network.apply(params, x, jnp.full(len(x), t))


def follow(steps: int, count: int = 1_500) -> tuple[np.ndarray, np.ndarray]:
    """Return the times and the points at each time, `[T count 2]`, by Euler's method."""
    schedule = ode.make_schedule("euler", steps)
    stepper, times = ode.make_stepper(field, schedule), schedule.times
    step = jax.jit(stepper.step)
    carry = stepper.init(jax.random.normal(jax.random.key(2), (count, 2)))
    states = [carry[0]]
    for number in range(steps - 1):
        carry = step(number, carry)
        states.append(carry[0])
    # The stepper leaves out the last interval, since v is 0/0 at t=1 for an x1 prediction.
    states.append(states[-1] + (1 - times[-1]) * field(times[-1], states[-1]))
    return np.array([*times, 1.0]), np.stack(states)


times, path = follow(64)
figure, cells = plt.subplots(1, 6, figsize=(13, 2.5), layout="constrained")
for axes, t in zip(cells, (0, 0.25, 0.5, 0.75, 1), strict=False):
    at = np.argmin(np.abs(times - t))
    axes.scatter(*path[at].T, s=2, color=PICTURES, alpha=0.5, linewidths=0)
    axes.set_title(f"t = {t}", fontsize=10)
cells[5].plot(path[:, :40, 0], path[:, :40, 1], color=WORDS, linewidth=0.7)
cells[5].scatter(*path[-1, :40].T, s=9, color=PICTURES, zorder=3)
cells[5].set_title("40 trajectories", fontsize=10)
for axes in cells:
    axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# The trajectories are nearly straight, so a few steps are enough:

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
# ## 3. The flow of a document
#
# A whole document now replaces the point. An image is a sequence of patches, each a vector. A
# token becomes a vector too: its row in the table of token embeddings. During sampling a text
# slot can therefore lie *between several tokens*, while the image beside it is still undecided. A
# corrupted document consists of masked tokens and noisy patches:
#
# | | clean, $x_1$ | corrupted, $x_0$ |
# |---|---|---|
# | token | its embedding | the mask embedding plus noise |
# | patch | its pixels | noise |
#
# Given parts (in green) stay clean; all other slots flow together. The model comes with the
# project and was trained on 339 emoji and their names (`docs/shipped.md`). **Drag the slider.**
#
# Of the seeds 0 to 15, 12 give documents without a mistake. In three of the others, a category does
# not fit, as in "two animals: a rat and a pear". Words that are decided at the same time must agree
# with one another, which is learned late.

# %%
model = of.load(of.PRETRAINED)
print(model)
moments = list(model.stream("<text> <image> and <text> <image>", steps=16, seed=0))
of.TrajectoryViewer(moments)

# %% [markdown]
# A film strip shows the same steps without interaction. The upper row shows the noisy image x_t,
# and the lower row the x1 prediction. Tokens are hidden where their confidence is low.


# %%
def strip(moments: list[of.SamplingStep], columns: int = 5) -> None:
    """Show several steps of a document side by side."""
    chosen = [moments[round(n * (len(moments) - 1) / (columns - 1))] for n in range(columns)]
    count = len(chosen[-1].noisy_images)
    _, cells = plt.subplots(
        2, columns * count, figsize=(2.6 * columns, 3.2), layout="constrained", squeeze=False
    )
    for n, state in enumerate(chosen):
        for m in range(count):
            cells[0, n * count + m].imshow(state.noisy_images[m])
            cells[1, n * count + m].imshow(state.document.images[m])
        words = "".join(
            word.text if word.given or word.confidence > 0.5 else " ▒" for word in state.tokens
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
# Any part of a document may be given. Text to image, image to text, infilling and joint
# generation use the same model and the same call:

# %%
(tiger,) = model.generate("a picture of a tiger: <image>", seed=1)
picture = tiger.images[0]
tasks = {
    "text to image": ["a picture of a fox:", of.IMAGE],
    "image to text": [picture, of.TEXT],
    "infilling": ["a picture of", of.text(3), picture],
    "from nothing": [of.TEXT, of.IMAGE],
}
for name, prompt in tasks.items():
    (document,) = model.generate(prompt, seed=5)
    print(f"{name}, NFE {document.nfe}:")
    display(document)

# %% [markdown]
# ## 4. Train a small model
#
# scikit-learn contains 1,797 real handwritten digits of 8 x 8 pixels; the data set gives each a
# caption in one of four forms ("someone wrote the numeral seven here"). `configs/digits.py` is
# the configuration; here its training is shorter. The loss has two terms: the cross-entropy of
# the corrupted tokens, and the squared error of the velocity of images. (A single squared error
# for everything, as the method is often printed, makes the learned token embeddings collapse:
# `docs/oneflow.md` measures this failure.)

# %%
RUN = epath.Path("runs/notebook-quick" if QUICK else "runs/notebook")
config = digits.get_config()
config.name = "notebook"
config.model.update(SMALL)
config.steps = 30 if QUICK else 1_500
config.logging.every = config.steps // 30
config.checkpoint.every = config.evaluation.every = config.steps
config.evaluation.nfe = (4,) if QUICK else (1, 2, 4, 8, 16)
config.evaluation.num_samples = 40 if QUICK else 200
config.sampling.steps = 5
# The batch size must be a multiple of the number of devices.
config.batch_size = config.evaluation.batch_size = -(-64 // jax.device_count()) * jax.device_count()
if QUICK:
    shutil.rmtree(RUN, ignore_errors=True)

config.lock()
with run_lock.lock(RUN):
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
# ## 5. Load the model and sample
#
# `of.load` needs only the folder of a run; your own checkpoints load the same way. Images become
# good before captions do: in this configuration, only one training document in twenty asks for
# the caption of a given image.

# %%
mine = of.load(RUN)
made = mine.generate("<text> <image>", samples=16, seed=0)
figure, cells = plt.subplots(2, 8, figsize=(12, 3.6), layout="constrained")
for axes, document in zip(cells.flat, made, strict=True):
    axes.imshow(document.images[0], cmap="gray")
    axes.set_title(_lines(document.text, 14), fontsize=8)
    axes.set(xticks=[], yticks=[])
plt.suptitle("text and images from nothing", x=0.01, ha="left", fontsize=10)
plt.show()

# %%
asked = [f"a drawing of the digit {name} <image>" for name in ("zero", "three", "seven", "nine")]
drawn = mine.generate_batch(asked, seed=2)
named = mine.generate_batch([[of.TEXT, document.images[0]] for document in drawn], seed=2)
figure, cells = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for axes, prompt, there, back in zip(cells, asked, drawn, named, strict=True):
    axes.imshow(there.images[0])
    read = _lines(f"caption: {back.text}", 24)
    axes.set_title(f"prompt: {prompt.split()[-2]}\n{read}", fontsize=8)
    axes.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 6. How many steps?
#
# The NFE determines the sampling speed: NFE 8 is four times as fast as NFE 32.
# `caption_validity` is the fraction of captions, generated without a prompt, that are exactly one
# of the 40 captions of the data; `image_caption_match` is the fraction of those whose image a
# classifier reads as the digit that the caption names; `caption_diversity` is the effective number
# of distinct captions, divided by 40. (The full configuration trains twice as long and has better
# results: `docs/passes.md`.)

# %%
with run_lock.lock(RUN):
    figures = evaluate.run(system, RUN)
curves = evaluate.metrics_by_nfe(figures)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, color in (
    ("caption_validity", WORDS),
    ("image_caption_match", PICTURES),
    ("caption_diversity", INK),
):
    if name in curves:
        axes.plot(*zip(*curves[name], strict=True), "o-", color=color, label=name)
axes.set_xscale("log", base=2)
axes.set(xlabel="forward passes (NFE)", ylabel="fraction", ylim=(0, 1.02))
axes.set_xticks(config.evaluation.nfe, config.evaluation.nfe)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The shipped model on one document, with an increasing NFE:

# %%
MANY = (1, 16) if QUICK else (1, 2, 4, 8, 16)
figure, cells = plt.subplots(1, len(MANY), figsize=(11, 2.6), layout="constrained")
for axes, steps in zip(cells, MANY, strict=True):
    (document,) = model.generate("<text> <image>", steps=steps, seed=4)
    axes.imshow(document.images[0])
    axes.set_title(f"NFE {document.nfe}\n{_lines(document.text, 20)}", fontsize=9)
    axes.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 7. Several devices
#
# Today `jax.jit` over a named mesh replaces `pjit`. A mesh has axes; rules name the axes along
# which parameters and batches are sharded; XLA adds the communication. On a TPU slice only the
# configuration changes: `config.mesh.fsdp = 4`. On a machine with one device, the next cell
# emulates eight in a separate process.

# %%
SHOW = """
import jax
from oneflow_jax.runtime import sharding

count = len(jax.devices())
two = 2 if count % 2 == 0 else 1
mesh = sharding.make_mesh({"data": count // two, "tensor": two})
rules = dict(sharding.RULES)
batch = jax.device_put(jax.numpy.zeros((64, 96)), sharding.batch_sharding(mesh))
print("a batch, 64 rows of 96 slots: rows are sharded over 'data'")
jax.debug.visualize_array_sharding(batch)
hidden = jax.sharding.NamedSharding(mesh, jax.P(rules["width"], rules["hidden"]))
weights = jax.device_put(jax.numpy.zeros((128, 384)), hidden)
print("a weight matrix, 128 x 384: its hidden width is sharded over 'tensor'")
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
# ## Where next
#
# - Your own checkpoint: `of.load("runs/mine")`; from a bucket, `of.load("gs://...")`.
# - An interactive page: `make demo`.
# - All seven paradigms with their equations: `docs/oneflow.md` and the following pages; their
#   comparison: `docs/comparison.md`.
# - A TPU pod from creation to deletion: `launch/README.md`.
#
# Emoji drawings by OpenMoji, CC BY-SA 4.0; digit scans from scikit-learn.
