"""What all configurations share: every key there is, with a value for a small machine."""

import ml_collections

from oneflow_jax.nn import two_tower


def base_config(name: str) -> ml_collections.ConfigDict:
    """What all runs share, whatever they train; `name` is the run's."""
    config = ml_collections.ConfigDict()
    config.name = name
    config.seed = 0
    config.steps = 1_000  # updates of the parameters
    config.batch = 64  # rows of the global batch: of slots, or pictures
    config.parts = 1  # microbatches that a batch is cut into
    config.platform = "any"  # "tpu": refuse to start on anything else ...
    config.needs = ""  # ... and say that this is needed
    config.topologies = ()  # TPU slices that --mode=compile is for, as in ("v4-64",)

    config.profile = ()  # first and last step to profile, as in (100, 105)
    config.keep_compiled = False  # whether programs are kept in the run's folder for the next start

    # What `data.sources` is to open: its name, and settings of its own.
    config.source = ml_collections.ConfigDict({"name": "toy"})

    config.data = ml_collections.ConfigDict()
    config.data.dir = "runs/data"  # prepared data sets, shared by runs
    # Independent parts of a batch, each of which reads and packs documents of its own. They divide
    # batch; a multiple of the number of hosts, so that each host reads its share alone.
    config.data.streams = 1
    config.data.workers = 0  # processes that lay out and pack, at most one a stream; 0 is a thread
    config.data.cache = 20_000  # documents that each of them may keep in memory, laid out
    config.data.preparing = 1  # processes that prepare data of yours (configs/own.py)

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 100
    config.optimizer.final = 0.05  # the last rate, as a share of the highest
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip = 1.0
    config.optimizer.ema = 0.999
    config.optimizer.frozen = ""  # regular expression: names of parameters that do not change

    config.mesh = ml_collections.ConfigDict()  # sizes that multiply to the number of devices ...
    config.mesh.slices = 1  # ... TPU slices; each of these shares out rows ...
    config.mesh.data = -1  # ... -1: the rest ...
    config.mesh.fsdp = 1  # ... rows, and parameters ...
    config.mesh.sequence = 1  # ... slots of each row, for long ones ...
    config.mesh.tensor = 1  # ... and heads, hidden widths and the vocabulary

    config.logging = ml_collections.ConfigDict()
    config.logging.every = 50  # steps

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 500  # steps
    config.checkpoint.keep = 2  # the newest ...
    config.checkpoint.milestones = 0  # ... and those of every so many steps; 0: none

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.every = 500  # steps between held-out losses
    config.evaluation.samples = 128  # documents of each task, or pictures
    config.evaluation.batch = 64
    return config


def document_model_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of models of documents that the others change; `name` is the run's."""
    config = base_config(name)
    config.start = ""  # folder of a run whose averaged parameters to begin from
    config.data.length = 64  # slots of a row
    config.data.text_slots = 8  # text runs are multiples of this long; 0: any length
    config.data.vocab = 512  # pieces that the tokenizer learns
    config.data.coverage = 1.0  # share of the text's symbols that it has pieces for, from 0.98
    config.data.long = "error"  # documents that a row has no room for; or "cut", "drop"

    config.codec = ml_collections.ConfigDict()
    config.codec.name = "patches"  # or "learned", "codes": see below
    config.codec.pixels = 4  # height and width of a picture
    config.codec.patch = 2  # height and width of a patch, in pixels
    config.codec.colors = 3
    config.codec.mean = 0.0  # of the data's pixel values, -1 to 1
    config.codec.deviation = 1.0

    config.model = transformer_config(layers=4, width=128, heads=2)

    config.paradigm = ml_collections.ConfigDict()
    config.paradigm.name = "oneflow"  # or another of `build.paradigms`
    config.paradigm.objective = "endpoint"  # of oneflow's words; or "velocity", "literal"
    config.paradigm.cap = 10.0  # highest weight of a hidden token of mask_flow
    config.paradigm.image = "clean"  # what is predicted of a patch; or "velocity"
    config.paradigm.joint = 0.4  # shares of the training tasks
    config.paradigm.text_to_image = 0.25
    config.paradigm.image_to_text = 0.2
    config.paradigm.spans = 0.1
    config.paradigm.scattered = 0.05
    config.paradigm.drop = 0.1  # share of both that hides what is given, for guidance
    config.paradigm.floor = 0.05  # of 1 - t, where a clean patch is scored
    config.paradigm.clock = ("power", 1.0)  # how often each time comes; 1.0 is uniform
    config.paradigm.interleaved = 0.3  # share of edit_flow's joint documents: pictures are born ...
    config.paradigm.independent = 0.1  # ... have times of their own, all there from the start ...
    config.paradigm.together = 0.4  # ... or one time with the words ...
    config.paradigm.revised = 0.2  # ... or all is there, with mistakes in it
    config.paradigm.text_clock = False  # whether edit_flow tells the network the text's time
    config.paradigm.text_weight = 1.0
    config.paradigm.tokens_weight = 1.0  # of edit_flow: which tokens are missing ...
    config.paradigm.count_weight = 1.0  # ... how many ...
    config.paradigm.empty_weight = 1.0  # ... and whether any ...
    config.paradigm.fate_weight = 1.0  # ... which items are wrong or too many ...
    config.paradigm.words_weight = 1.0  # ... and what should stand there
    config.paradigm.image_weight = 1.0
    config.paradigm.z_weight = 1e-5  # of chameleon and dalle: z-loss

    config.evaluation.clocks = 5  # buckets of the clock
    config.evaluation.score = ""  # figures of merit: "", "digits" or "emoji"
    config.evaluation.thorough = False  # also figures that take networks: requirements-metrics.txt
    config.evaluation.inception = ""  # ... and FID, by pytorch-fid's file of weights
    config.evaluation.clip = ""  # ... and CLIP score, by a CLIP's folder in Hugging Face's layout
    config.evaluation.passes = (16,)  # numbers of forward passes to score

    config.sampling = ml_collections.ConfigDict()
    config.sampling.samples = 4  # of each prompt
    config.sampling.every = 0  # steps between previews while training; 0: none
    config.sampling.steps = 9  # of Heun's method: 17 forward passes
    config.sampling.solver = "heun"  # "euler", "midpoint", "tsit5", "dopri5"; or "renoise"
    config.sampling.grid = "cosine"  # or "uniform", "sine", "learned"
    config.sampling.guidance = 1.0  # of pictures by words; 1 is none
    config.sampling.text_guidance = 1.0  # of words by pictures
    config.sampling.temperature = 1.0  # of words, where they are drawn: all but oneflow
    config.sampling.top_p = 1.0  # ... from the likeliest, that add up to this
    config.sampling.top_k = 0  # ... or from so many of the likeliest; 0: from all
    config.sampling.order = "random"  # in which mask_flow reads words; or "confidence"
    config.sampling.remask = 0.0  # probability in a step to hide a read word again
    config.sampling.start = 0.8  # of a revision: the share of the document taken to be right
    config.sampling.seed = 0
    config.sampling.prompts = ("<text> <image>",)
    return config


def set_paradigm(config: ml_collections.ConfigDict, paradigm: str) -> None:
    """Sets the paradigm, and with it how it samples best in few passes (docs/passes.md)."""
    config.paradigm.name = paradigm
    if paradigm == "oneflow":
        return
    config.sampling.solver = "euler"  # words jump
    config.sampling.steps = 16
    config.sampling.grid = "uniform"
    config.sampling.temperature = 0.7  # what is written cannot be taken back
    if paradigm == "edit_flow":
        config.data.text_slots = 0
        config.sampling.grid = "sine"  # small steps last: one word a step comes into a gap
    if paradigm in ("chameleon", "dalle", "transfusion", "language", "lmfusion"):
        config.data.text_slots = 0
    if paradigm == "chameleon":
        config.paradigm.text_weight = config.paradigm.image_weight = 1.0
    if paradigm == "dalle":
        config.paradigm.text_weight, config.paradigm.image_weight = 1 / 8, 7 / 8
    if paradigm == "language":
        config.optimizer.frozen = two_tower.IMAGE_PARAMS
    if paradigm == "lmfusion":
        config.optimizer.frozen = two_tower.TEXT_PARAMS
    if paradigm in ("transfusion", "language", "lmfusion"):
        config.sampling.solver = "heun"  # of each picture; words take a pass each, besides
        config.sampling.steps = 5
        config.sampling.grid = "cosine"


def latent_codec(path: str, pixels: int, patch: int) -> ml_collections.ConfigDict:
    """The codec of an autoencoder in the layout of diffusers, in a folder of yours."""
    codec = ml_collections.ConfigDict()
    codec.name = "learned"
    codec.path = path
    codec.pixels = pixels  # height and width of a picture
    codec.patch = patch  # height and width of a slot, in latents
    codec.deviation = 1.0  # how much fainter than unit variance latents are to be
    return codec


def vq_codec(path: str, pixels: int) -> ml_collections.ConfigDict:
    """The codec of a VQModel's codes, for chameleon and dalle."""
    return ml_collections.ConfigDict({"name": "codes", "path": path, "pixels": pixels})


def shrink_for_debugging(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Any configuration, shrunk to train for two steps on any machine within seconds."""
    config.platform = "any"
    config.steps = 2
    config.batch = 8
    config.parts = min(config.parts, 2)
    config.data.streams = min(config.data.streams, 2)
    config.mesh.update({"slices": 1, "data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})
    if "autoencoder" in config:
        return _shrink_codec(config)
    config.model.update(transformer_config(layers=2, width=32, heads=2))
    config.model.dtype = "float32"
    if "documents" in config.source:
        config.source.documents = 64
        config.source.held_out_documents = 64
        config.source.concepts = 16
    if config.codec.name == "patches":
        config.codec.pixels = min(config.codec.pixels, 4 * config.codec.patch)
    config.data.length = min(config.data.length, 256)
    config.data.workers = 0
    config.optimizer.warmup = 1
    config.logging.every = 1
    config.evaluation.update({"every": 2, "clocks": 2, "passes": (2,), "samples": 8, "batch": 8})
    config.checkpoint.every = 2
    config.sampling.update({"steps": 2, "samples": 1})
    return config


def _shrink_codec(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config.source.update({"documents": 16, "held_out_documents": 8, "concepts": 16, "pixels": 32})
    config.autoencoder.block_out_channels = (8,) * len(config.autoencoder.block_out_channels)
    if "num_vq_embeddings" in config.autoencoder:
        config.autoencoder.num_vq_embeddings = 16
    config.optimizer.warmup = 1
    config.logging.every = 1
    config.evaluation.update({"every": 2, "samples": 12, "fitted": 16, "batch": 8})
    config.checkpoint.every = 2
    return config


def transformer_config(
    layers: int, width: int, heads: int, kv_heads: int | None = None, hidden: int | None = None
) -> ml_collections.ConfigDict:
    """The shape of a transformer, computing in float32 and straight-line, as CPUs like it."""
    model = ml_collections.ConfigDict()
    model.layers = layers
    model.width = width
    model.heads = heads
    model.kv_heads = kv_heads or heads
    model.head_width = width // heads
    model.hidden = hidden or round(width * 8 / 3 / 64) * 64
    model.embed_width = min(width, 128)
    model.remat = "none"
    model.unroll = layers
    model.dtype = "float32"
    model.attention = "dense"  # or "blocks", for long rows; "splash", for TPUs: nn/attention_ops.py
    return model
