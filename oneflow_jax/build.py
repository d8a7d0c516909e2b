"""From configuration to objects; `registry` and `plans` do it for paradigms and for sampling.

Below these modules there are objects with typed fields.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from oneflow_jax import optim, plans, registry, sharding, step, workdir
from oneflow_jax.canvas import View
from oneflow_jax.codecs import patches
from oneflow_jax.data import emoji as emoji_data
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import sources
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError
from oneflow_jax.nn import backbone
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms import base
from oneflow_jax.scoring import base as scoring
from oneflow_jax.scoring import digits, emoji

COUNTS = (
    "steps",
    "batch",
    "parts",
    "data.length",
    "logging.every",
    "checkpoint.every",
    "checkpoint.keep",
    "evaluation.every",
    "evaluation.clocks",
    "evaluation.samples",
    "evaluation.batch",
    "sampling.samples",
    "sampling.steps",
)
"""What there must be one of at least."""

VOCAB_DOCUMENTS = 20_000
"""The tokenizer is learned from so many documents at most."""


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that a run is made of, but its state.

    Attributes:
        config: the configuration it was built from, for the record.
        mesh: the devices.
        layout: how documents become slots, with vocabulary and codec.
        model, paradigm: what is trained, and how.
        settings, optimizer: of training.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    layout: layouts.Layout
    model: Model
    paradigm: base.Paradigm
    settings: optim.Settings
    optimizer: optax.GradientTransformation


def system(config: ml_collections.ConfigDict, folder: epath.Path) -> System:
    """Everything that a run in `folder` is made of.

    The data set is prepared and the tokenizer learned if they are not there yet.

    Raises:
        UserError: a value in the configuration is wrong, alone or beside another.
    """
    check_platform(config)
    _check_counts(config)
    mesh = sharding.make_mesh(config.mesh.to_dict())
    sharding.check_rows(mesh, config.batch, config.parts)
    codec = patches.Patches(**config.codec)
    layout = layouts.Layout(
        vocab=_vocab(config, folder),
        codec=codec,
        length=config.data.length,
        text_slots=config.data.text_slots,
    )
    paradigm = registry.paradigm(config, layout.vocab, codec)
    settings = optim.Settings(steps=config.steps, **config.optimizer)
    built = System(
        config=config,
        mesh=mesh,
        layout=layout,
        model=_model(config, layout.vocab.size_padded(), paradigm),
        paradigm=paradigm,
        settings=settings,
        optimizer=optim.optimizer(settings),
    )
    # What would fail after training is refused before.
    plans.check(config, paradigm)
    _suite_maker(config)
    return built


def check_platform(config: ml_collections.ConfigDict) -> None:
    """Refuses to start where the configuration cannot run.

    Raises:
        UserError: the configuration is for another kind of device; it says which, and what else
            to run.
    """
    needs = config.platform
    found = jax.devices()
    if needs not in ("any", found[0].platform):
        raise UserError(
            f"{config.name} needs {needs.upper()} devices, and JAX found {len(found)} "
            f"{found[0].platform.upper()} device(s) here ({found[0].device_kind}). {config.needs} "
            "On this machine run --config=configs/quickstart.py (15 minutes on 2 cores) or "
            "--config=configs/digits.py instead."
        )


def source(config: ml_collections.ConfigDict, split: str) -> sources.Source:
    """The documents of one split of the configured data set, prepared if need be."""
    return sources.open_source(data_dir=config.data.dir, split=split, **config.source)


def suite(built: System) -> scoring.Suite:
    """What the configured data set asks of a model, as far as it can do that at all."""
    whole = _suite_maker(built.config)()
    able = tuple(task for task in whole.tasks if built.paradigm.revises or not task.revises)
    return dataclasses.replace(whole, tasks=able)


def abstract_state(built: System) -> step.TrainState:
    """Shapes, types and shardings of the training state, without its values."""
    with sharding.use(built.mesh):
        boxed = jax.eval_shape(_initial(built), jax.random.key(built.config.seed))
    shardings = sharding.of_state(built.mesh, boxed)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        sharding.unboxed(boxed),
        shardings,
    )


def initial_state(built: System) -> step.TrainState:
    """The state before the first step, each device holding its share from the start."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(built))
    with sharding.use(built.mesh):
        init = jax.jit(lambda key: sharding.unboxed(_initial(built)(key)), out_shardings=shardings)
        return init(jax.random.key(built.config.seed))


def _check_counts(config: ml_collections.ConfigDict) -> None:
    for field in COUNTS:
        value = operator.attrgetter(field)(config)
        if value < 1:
            raise UserError(f"{field}={value} must be at least 1.")


def _suite_maker(config: ml_collections.ConfigDict) -> Callable[[], scoring.Suite]:
    samples, grows = config.evaluation.samples, config.data.text_slots == 0
    suites: dict[str, Callable[[], scoring.Suite]] = {
        "": lambda: scoring.Suite((), {}),
        "digits": lambda: digits.suite(source(config, "train"), source(config, "heldout"), samples),
        "emoji": lambda: emoji.suite(
            _emoji_settings(config).drawn(),
            source(config, "train") if grows else (),
            source(config, "combinations") if _emoji_settings(config).interleaved else (),
            samples,
            grows=grows,
        ),
    }
    return registry.chosen("evaluation.score", config.evaluation.score, suites)


def _emoji_settings(config: ml_collections.ConfigDict) -> emoji_data.Settings:
    return emoji_data.Settings(
        **{name: value for name, value in config.source.items() if name != "name"}
    )


def _initial(built: System) -> Callable[[jax.Array], step.TrainState]:
    config = built.config
    lengths = (1, built.layout.length)
    view = View(
        kind=jnp.zeros(lengths, jnp.int32),
        segment=jnp.zeros(lengths, jnp.int32),
        position=jnp.zeros((*lengths, 3), jnp.int32),
        embeds=jnp.zeros((*lengths, config.model.embed_width)),
        latents=jnp.zeros((*lengths, built.layout.codec.channels)),
        clock=jnp.zeros(lengths),
    )
    return functools.partial(
        step.init_state, model=built.model, optimizer=built.optimizer, view=view
    )


def _vocab(config: ml_collections.ConfigDict, folder: epath.Path) -> vocabs.Vocab:
    """The run's vocabulary, learned from its training text at the first call."""
    path = folder / workdir.TOKENIZER
    if not path.exists():
        documents = source(config, "train")
        count = min(len(documents), VOCAB_DOCUMENTS)
        draft = path.with_name(path.name + ".draft")
        vocabs.train_vocab((documents[i].words() for i in range(count)), config.data.vocab, draft)
        draft.replace(path)
    return vocabs.Vocab.load(path)


def _model(config: ml_collections.ConfigDict, vocab: int, paradigm: base.Paradigm) -> Model:
    values = config.model.to_dict()
    embed_width = values.pop("embed_width")
    if values["remat"] not in backbone.REMAT:
        raise UserError(f"model.remat={values['remat']!r} is none of {', '.join(backbone.REMAT)}.")
    if values["head_width"] % 8 or values["heads"] % values["kv_heads"]:
        raise UserError(
            f"model: head_width={values['head_width']} must be a multiple of 8, and heads="
            f"{values['heads']} one of kv_heads={values['kv_heads']}."
        )
    size = backbone.Size(**values | {"dtype": jnp.dtype(values["dtype"])})
    return Model(size=size, vocab=vocab, embed_width=embed_width, heads=paradigm.heads)
