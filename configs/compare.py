"""Trains seven paradigms with equal FLOPs on the same documents, and compares them.

    python -m oneflow_jax.main --config=configs/compare.py          (4 hours on two CPU cores)
    python -m oneflow_jax.main --config=configs/compare.py:longer   (two paradigms, trained longer)
    python -m oneflow_jax.main --config=configs/compare.py:styles   (`make emoji-styles` first)
    python -m oneflow_jax.main --config=configs/compare.py:smoke    (a test that takes minutes)
    python -m oneflow_jax.main --config=configs/compare.py:styles_smoke

The documents are those of configs/documents.py: half of them have 2 to 4 emoji of 24 x 24 pixels.
With `styles`, they are those of configs/emoji_styles.py, and half of them have several images too.
All paradigms have the same backbone, optimizer, tasks and data. The learning rate of each paradigm
is tuned in the same way, and each paradigm is trained with three seeds. The command first trains a
VQModel for `chameleon` and `dalle`, and then one paradigm after another. A second call skips
finished runs. The comparison needs the packages of requirements-metrics.txt.
"""

import ml_collections

from oneflow_jax.configs import codec, common, emoji_styles, quickstart

PASSES = {
    "chameleon": (1,),  # a label, not the NFE: each token takes one forward pass
    "dalle": (1,),
    "transfusion": (3, 5, 9),  # per image; each text token takes one more forward pass
    "lmfusion": (3, 5, 9),
    "oneflow": (4, 8, 16, 32),
    "mask_flow": (4, 8, 16, 32),
    "edit_flow": (8, 16, 32),
}
"""NFEs to evaluate each paradigm with."""

HEADLINE = {
    "chameleon": 1,
    "dalle": 1,
    "transfusion": 9,
    "lmfusion": 9,
    "oneflow": 16,
    "mask_flow": 16,
    "edit_flow": 32,
}
"""The NFE that the tables report for each paradigm."""

RATES = {
    "chameleon": 1.2e-2,
    "dalle": 1.2e-2,
    "transfusion": 1.2e-2,
    "lmfusion": 6e-3,
    "oneflow": 1.2e-2,
    "mask_flow": 6e-3,
    "edit_flow": 6e-3,
}
"""Learning rate of each paradigm: the best value of those that benchmarks/tuning.py tried.

The rates were tuned on `emoji`. The comparison on `emoji_styles` uses the same rates.
"""

PAIR = ("transfusion", "oneflow")
"""Paradigms of `compare.py:longer`, which tests whether longer training closes their gap."""


KINDS = ("full", "longer", "styles", "smoke", "styles_smoke")


def get_config(kind: str = "full") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(
            f"configs/compare.py:{kind}: unknown kind. Choose from {', '.join(KINDS)}."
        )
    smoke, styles = kind.endswith("smoke"), kind.startswith("styles")
    names = PAIR if kind == "longer" else tuple(PASSES)
    suffix = kind.replace("_", "-")
    end, name = ("", "compare") if kind == "full" else (f":{kind}", f"compare-{suffix}")
    config = ml_collections.ConfigDict()
    config.name = name
    config.command = f"configs/compare.py{end}"  # the page shows this command
    config.platform = "any"
    config.platform_help = ""
    # Seeds of each paradigm's training and sampling.
    config.seeds = (0, 1, 2) if kind in ("full", "styles") else (0,)
    config.train_flops = 1e14 if kind == "longer" else 3e13  # training FLOPs of each paradigm
    config.text_pretrain_fraction = 1 / 3  # fraction of the FLOPs for lmfusion's text model
    config.num_samples = 256  # documents per task, or images of the codec, to evaluate
    config.latency_repeats = 8  # times to measure a single document, and a batch of 8
    config.compile_fast = smoke  # skip XLA optimizations; programs then compile fast but run slowly
    config.models_shown = names  # order of the models in tables and plots
    config.reported_nfe = ml_collections.ConfigDict({name: HEADLINE[name] for name in names})
    config.codec = _codec_config(smoke=smoke, styles=styles)
    config.models = ml_collections.ConfigDict(
        {name: paradigm_config(name, smoke=smoke, styles=styles) for name in names}
    )
    config.text_model = paradigm_config("language", smoke=smoke, styles=styles)
    if smoke:
        config.train_flops = 4e9
        config.num_samples = 16
        config.latency_repeats = 1
    return config


def paradigm_config(
    name: str, *, smoke: bool = False, styles: bool = False
) -> ml_collections.ConfigDict:
    """Return the configuration of one paradigm; the comparison sets its steps, seed and codec.

    Args:
        name: name of the paradigm.
        smoke: whether the run is a test with tiny sizes.
        styles: whether the data set is `emoji_styles` instead of `emoji`.
    """
    config = (emoji_styles if styles else quickstart).get_config(name)
    config.name = name
    config.source.documents = 10_000
    config.source.interleaved = 0.5
    config.optimizer.name = "adamw"  # the rates were tuned for it
    config.optimizer.learning_rate = RATES["lmfusion" if name == "language" else name]

    config.paradigm.tasks.joint = 0.6
    config.paradigm.tasks.text_to_image = 0.15
    config.paradigm.tasks.image_to_text = 0.15
    config.paradigm.tasks.spans = 0.05
    config.paradigm.tasks.scattered = 0.05
    config.paradigm.tasks.text_first = 0.0
    config.paradigm.time_coupling.interleaved = 0.6
    config.paradigm.time_coupling.independent = 0.1
    config.paradigm.time_coupling.together = 0.3
    config.paradigm.time_coupling.edited = 0.0  # no documents with errors for edit_flow

    config.evaluation.every = 500
    config.evaluation.full_metrics = name != "language"
    config.evaluation.nfe = PASSES.get(name, (1,))
    config.init_from = ""  # the comparison sets the folder of the text model
    if name == "oneflow":
        # Renoising with a learned grid gives better documents at a small NFE. For the images of
        # transfusion it makes no difference (docs/passes.md).
        config.sampling.solver, config.sampling.time_grid = "renoise", "learned"
        config.sampling.steps = HEADLINE[name]
    if name in ("chameleon", "dalle"):
        config.codec = common.vq_codec("", pixels=24)
        config.source.pixels = 24
        # An image is 36 image tokens, so rows are twice as long, and a batch has half as many rows.
        config.batch_size = 8
        config.data.sequence_length = 208
    if smoke:
        common.shrink_for_debugging(config)
        config.data.sequence_length = min(config.data.sequence_length, 208)
        config.evaluation.nfe = (HEADLINE.get(name, 1),)
        config.evaluation.every = config.checkpoint.every = 1_000
    return config


def _codec_config(*, smoke: bool, styles: bool) -> ml_collections.ConfigDict:
    """Return the configuration of the codec, trained on all emoji of the training documents.

    The codec is not trained on held-out emoji; with `styles`, it is not trained on held-out pairs.
    """
    config = codec.get_config("vq")
    config.name = "codec"
    config.steps = 4_000
    config.batch_size = 16
    if styles:
        config.source = emoji_styles.get_config().source
        config.source.update({"concepts": None, "documents": 8_000, "interleaved": 0.0})
        config.source.held_out_documents = 1_000
        config.data.pixels = config.source.get_ref("pixels")
    config.source.pixels = 24
    config.source.categories = ("Animals & Nature", "Food & Drink")
    config.objective.perceptual_weight = 0.0  # LPIPS needs larger images
    if smoke:
        common.shrink_for_debugging(config)
        config.source.pixels = 24
    return config
