"""Trains seven paradigms at equal FLOPs on the same documents, and shows them side by side.

    python -m oneflow_jax.main --config=configs/compare.py          (4 hours on two CPU cores)
    python -m oneflow_jax.main --config=configs/compare.py:longer   (two of them, for longer)
    python -m oneflow_jax.main --config=configs/compare.py:smoke    (minutes: does it all run?)

The documents are those of configs/documents.py: emoji of 24 x 24 pixels, half of the documents with
2 to 4 of them. Same backbone, optimizer, tasks and data for all; the learning rate tuned alike for
each; three trainings of each. First a VQModel is trained, for `chameleon` and `dalle`; then the
paradigms, one after another; what is finished is not done again. Needs the packages of
requirements-metrics.txt.
"""

import ml_collections

from configs import codec, common, quickstart

PASSES = {
    "chameleon": (1,),  # a pass for each token, whatever is asked for
    "dalle": (1,),
    "transfusion": (3, 5, 9),  # of each picture
    "lmfusion": (3, 5, 9),
    "oneflow": (4, 8, 16, 32),
    "mask_flow": (4, 8, 16, 32),
    "edit_flow": (8, 16, 32),
}
"""Forward passes to evaluate with, of each paradigm."""

HEADLINE = {
    "chameleon": 1,
    "dalle": 1,
    "transfusion": 9,
    "lmfusion": 9,
    "oneflow": 16,
    "mask_flow": 16,
    "edit_flow": 32,
}
"""With which of them a paradigm stands in the tables."""

RATES = {
    "chameleon": 1.2e-2,
    "dalle": 1.2e-2,
    "transfusion": 1.2e-2,
    "lmfusion": 6e-3,
    "oneflow": 1.2e-2,
    "mask_flow": 6e-3,
    "edit_flow": 6e-3,
}
"""Learning rates, each paradigm's best of those that benchmarks/tuning.py tried."""

PAIR = ("transfusion", "oneflow")
"""Who is trained for longer: is what flows lack a matter of training?"""


def get_config(kind: str = "full") -> ml_collections.ConfigDict:
    """The configuration; `kind` is "full", "longer" or "smoke"."""
    if kind not in ("full", "longer", "smoke"):
        raise ValueError(f"configs/compare.py:{kind}: there are full, longer and smoke.")
    smoke = kind == "smoke"
    names = PAIR if kind == "longer" else tuple(PASSES)
    end, name = ("", "compare") if kind == "full" else (f":{kind}", f"compare-{kind}")
    config = ml_collections.ConfigDict()
    config.name = name
    config.command = f"configs/compare.py{end}"  # for the page
    config.platform = "any"
    config.needs = ""
    # Of each paradigm's training, and of what it makes.
    config.seeds = (0, 1, 2) if kind == "full" else (0,)
    config.flops = 1e14 if kind == "longer" else 3e13  # of each paradigm's training
    config.language = 1 / 3  # share of it for the text model of lmfusion
    config.samples = 256  # documents, or pictures, that figures are of
    config.latency = 8  # documents, or batches of 8, that are timed
    config.compile_fast = smoke  # and run slowly
    config.order = names  # in which they are shown
    config.headline = ml_collections.ConfigDict({name: HEADLINE[name] for name in names})
    config.codec = _codec_config(smoke)
    config.contestants = ml_collections.ConfigDict(
        {name: paradigm_config(name, smoke) for name in names}
    )
    config.text_model = paradigm_config("language", smoke)
    if smoke:
        config.flops = 4e9
        config.samples = 16
        config.latency = 1
    return config


def paradigm_config(name: str, smoke: bool) -> ml_collections.ConfigDict:
    """The configuration of one paradigm; the comparison fills in steps, seed and codec."""
    config = quickstart.get_config(name)
    config.name = name
    config.source.documents = 10_000
    config.source.interleaved = 0.5
    config.optimizer.learning_rate = RATES["lmfusion" if name == "language" else name]

    config.paradigm.joint = 0.6
    config.paradigm.text_to_image = 0.15
    config.paradigm.image_to_text = 0.15
    config.paradigm.spans = 0.05
    config.paradigm.scattered = 0.05
    config.paradigm.interleaved = 0.6  # of edit_flow: no documents with mistakes in them
    config.paradigm.independent = 0.1
    config.paradigm.together = 0.3
    config.paradigm.revised = 0.0

    config.evaluation.every = 500
    config.evaluation.thorough = name != "language"
    config.evaluation.passes = PASSES.get(name, (1,))
    config.start = ""  # the comparison knows where the text model is
    if name == "oneflow":
        # Better documents in few passes; no other pictures of transfusion: docs/passes.md.
        config.sampling.solver, config.sampling.grid = "renoise", "learned"
        config.sampling.steps = HEADLINE[name]
    if name in ("chameleon", "dalle"):
        config.codec = common.vq_codec("", pixels=24)
        config.source.pixels = 24
        # 36 codes a picture: rows twice as long, half as many.
        config.batch = 8
        config.data.length = 208
    if smoke:
        common.shrink_for_debugging(config)
        config.data.length = min(config.data.length, 208)
        config.evaluation.passes = (HEADLINE.get(name, 1),)
        # Most of its time goes into compiling.
        config.model.unroll = 1
        config.evaluation.every = config.checkpoint.every = 1_000
    return config


def _codec_config(smoke: bool) -> ml_collections.ConfigDict:
    """Of all emoji that could be in the documents, but those held out."""
    config = codec.get_config("vq")
    config.name = "codec"
    config.steps = 4_000
    config.batch = 16
    config.source.pixels = 24
    config.source.categories = ("Animals & Nature", "Food & Drink")
    config.objective.perceptual_weight = 0.0  # LPIPS wants larger pictures
    if smoke:
        common.shrink_for_debugging(config)
        config.source.pixels = 24
    return config
