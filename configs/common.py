"""Default configurations for a small machine; all other configurations start from them."""

import ml_collections

from oneflow_jax.nn import two_tower


def base_config(name: str) -> ml_collections.ConfigDict:
    """Return the defaults that document models and codecs share; `name` is the run's name."""
    config = ml_collections.ConfigDict()
    config.name = name
    config.seed = 0
    config.steps = 1_000  # number of training steps, each of which updates the parameters once
    config.batch_size = 64  # global batch: rows of a document model, or images of a codec
    config.grad_accum_steps = 1  # microbatches that a batch is split into
    # Required platform: "any", or "tpu" or "gpu" to refuse to start on anything else.
    config.platform = "any"
    config.platform_help = ""  # sentence added to the error about a wrong platform
    # TPU slices or GPU nodes that --mode=aot compiles for by default, e.g. ("v4-64",).
    config.aot_topologies = ()

    config.profile_steps = ()  # first and last step to profile, e.g. (100, 105)
    config.compilation_cache = False  # whether to cache compiled programs in the run's folder

    # The data set: its name (see `data.sources.open_dataset`), and its settings.
    config.source = ml_collections.ConfigDict({"name": "toy"})

    config.data = ml_collections.ConfigDict()
    config.data.dir = "runs/data"  # folder of prepared data sets, shared by runs
    # Number of data loader streams. Each stream reads and packs its own documents for its part of
    # the batch. The number must divide batch_size. If it is a multiple of the number of hosts, each
    # host reads only the documents of its own streams.
    config.data.num_streams = 1
    # Worker processes for layout and packing, at most one per stream; 0 uses a thread instead.
    config.data.num_workers = 0
    config.data.cache_size = 20_000  # laid-out documents that each process may keep in memory
    config.data.num_prepare_workers = 1  # processes that prepare user data (configs/own.py)
    config.data.shard_megabytes = 256  # size of the files that --runner writes, in MB of documents

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # or "muon", for the backbone's matrices; AdamW for the rest
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.end_lr_fraction = 0.05  # final learning rate, as a fraction of the peak
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.01
    config.optimizer.max_grad_norm = 1.0  # gradients are clipped to this global norm
    config.optimizer.ema_decay = 0.999  # decay of the moving average of the parameters
    config.optimizer.freeze = ""  # regular expression; parameters whose names match are not trained

    # Sizes of the mesh axes. The product of all sizes is the number of devices.
    config.mesh = ml_collections.ConfigDict()
    config.mesh.slices = 1  # data parallelism across TPU slices or GPU nodes
    config.mesh.data = -1  # data parallelism within a slice; -1: all remaining devices
    config.mesh.fsdp = 1  # shards the batch and the parameters
    config.mesh.context = 1  # shards the slots of each row, for long rows
    config.mesh.tensor = 1  # shards heads, hidden widths and the vocabulary

    config.logging = ml_collections.ConfigDict()
    config.logging.every = 50  # steps between log entries
    # Project of Weights & Biases, and address of MLflow, to log scalars to as well; "": none.
    config.logging.wandb_project = ""
    config.logging.mlflow_uri = ""  # e.g. "http://localhost:5000" or "sqlite:///mlflow.db"

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 500  # steps between checkpoints
    # A checkpoint is also saved at the first logged step after this number of minutes since the
    # last one; 0: only checkpoint.every counts.
    config.checkpoint.minutes = 0.0
    # Size of the training state in GB from which, on resume, the processes of one replica read the
    # checkpoint and send it to the others; 0: each process reads what its devices need.
    config.checkpoint.broadcast_min_gb = 0.0
    config.checkpoint.max_to_keep = 2  # number of newest checkpoints to keep
    # Checkpoints at multiples of this number of steps are kept permanently; 0: none.
    config.checkpoint.keep_period = 0
    # Whether to skip damaged checkpoints and resume from the newest undamaged one. The run moves
    # damaged checkpoints to its folder damaged_checkpoints. The saved configuration has False, so
    # that the value applies to one start only.
    config.checkpoint.skip_damaged = False
    # Whether to also keep the checkpoint with the lowest held-out loss, among the checkpoints whose
    # step is a multiple of evaluation.every.
    config.checkpoint.keep_best = True
    # Checkpoint for evaluation, sampling and exporting: "newest", or "best" for that of keep_best.
    config.checkpoint.use = "newest"

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.every = 500  # steps between evaluations of the held-out loss
    config.evaluation.num_samples = 128  # documents to generate per task, or images of a codec
    config.evaluation.batch_size = 64  # documents, or images of a codec, per batch
    return config


def document_model_config(name: str) -> ml_collections.ConfigDict:
    """Return the default configuration of document models; `name` is the run's name."""
    config = base_config(name)
    config.init_from = ""  # folder of a run whose EMA parameters initialize this run
    # Keys whose values the program chooses before training (build/choices.py). A value that you
    # give on the command line is not chosen.
    config.choose = ("optimizer.warmup_steps",)
    config.data.sequence_length = 64  # slots of a row
    # Text spans are padded to multiples of this number of slots; 0: no padding.
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 512  # number of tokens that the tokenizer learns
    config.data.character_coverage = 1.0  # fraction of characters with tokens, 0.98 to 1
    # Aspect ratios of images, width to height (docs/own_data.md#photos-that-are-not-square). With
    # "1:1" alone, all images are squares with white margins.
    config.data.aspect_ratios = ("1:1",)
    # Handling of documents that are longer than a row: "error", "split" or "drop".
    config.data.overflow = "error"

    config.codec = ml_collections.ConfigDict()
    config.codec.name = "patches"  # or "vae", "vq": see latent_codec and vq_codec below
    config.codec.pixels = 4  # height and width of an image
    config.codec.patch_size = 2  # height and width of a patch, in pixels
    config.codec.image_channels = 3
    config.codec.mean = 0.0  # subtracted from pixel values, which are from -1 to 1
    config.codec.std = 1.0  # pixel values are divided by this

    config.model = transformer_config(layers=4, width=128, heads=2)

    config.paradigm = ml_collections.ConfigDict()
    config.paradigm.name = "oneflow"  # one of build.paradigms
    # Text objective of oneflow; or "likelihood", "velocity", "naive".
    config.paradigm.objective = "cross_entropy"
    # Upper limit of the loss weight of a masked token of mask_flow.
    config.paradigm.max_mask_weight = 10.0
    config.paradigm.image_prediction = "x1"  # what the network predicts for patches; or "velocity"
    # Probabilities of the training tasks; they add up to 1.
    config.paradigm.tasks = ml_collections.ConfigDict()
    config.paradigm.tasks.joint = 0.4  # text and images are generated
    config.paradigm.tasks.text_to_image = 0.25  # images are generated from text
    config.paradigm.tasks.image_to_text = 0.2  # text is generated from images
    config.paradigm.tasks.spans = 0.1  # some text spans and images are generated
    config.paradigm.tasks.scattered = 0.05  # some tokens and images are generated
    # Text and images are generated, with a separate time for each text run and each image.
    config.paradigm.tasks.own_run_times = 0.0
    # Text and images are generated, with a separate time for each token and each image.
    config.paradigm.tasks.own_slot_times = 0.0
    # The same, with images that are pure noise (t = 0), so that only text tells about text.
    config.paradigm.tasks.text_first = 0.0
    # Probability of dropping the condition of text_to_image and image_to_text.
    config.paradigm.cond_drop_prob = 0.1
    config.paradigm.min_one_minus_t = 0.05  # lower limit of 1 - t in the loss of the x1 prediction
    # Distribution of t in training; ("power", 1.0) is the uniform distribution.
    config.paradigm.time_sampler = ("power", 1.0)
    # Distribution of t for oneflow's text in image_to_text, own_run_times, own_slot_times and
    # text_first. With (), it is that of time_sampler.
    config.paradigm.text_time_sampler = ()
    # oneflow: in documents whose text and images are generated, the odds t / (1 - t) of text are
    # those of the images times this number. With 1, both have the same time (flows/text_lead.py).
    config.paradigm.text_lead = 1.0
    # Whether oneflow learns a flow map, for sampling at NFE 1 to 4 (docs/flow_map.md).
    config.paradigm.flow_map = False
    # edit_flow, task joint: how the times of a document's text and images depend on each other.
    # Each value is the probability of one coupling; they add up to 1.
    config.paradigm.time_coupling = ml_collections.ConfigDict()
    config.paradigm.time_coupling.interleaved = 0.3  # images are inserted at random times
    config.paradigm.time_coupling.independent = 0.1  # text and each image have independent times
    config.paradigm.time_coupling.together = 0.4  # text and all images share one time
    config.paradigm.time_coupling.edited = 0.2  # finished documents with errors to correct
    # Whether the network of edit_flow gets the time of the text as an input.
    config.paradigm.condition_on_text_time = False
    config.paradigm.text_weight = 1.0  # loss weight of text, except for edit_flow
    config.paradigm.insert_token_weight = 1.0  # edit_flow: loss weight of which tokens to insert
    # edit_flow: loss weight of how many tokens and images are missing in a gap.
    config.paradigm.insert_count_weight = 1.0
    config.paradigm.insert_zero_weight = 1.0  # edit_flow: loss weight of whether a gap is empty
    config.paradigm.edit_op_weight = 1.0  # edit_flow: loss weight of keep, delete or substitute
    config.paradigm.substitute_weight = 1.0  # edit_flow: loss weight of the tokens to substitute by
    config.paradigm.image_weight = 1.0  # loss weight of images
    config.paradigm.z_loss_weight = 1e-5  # chameleon and dalle: loss weight of the z-loss

    config.evaluation.time_bins = 5  # bins of t for the held-out loss
    # Documents of each split whose losses show overfitting, and whether texts and images belong
    # together (docs/training.md); 0: none.
    config.evaluation.loss_documents = 0
    # Tasks and metrics for generated documents: "emoji", "emoji_styles" or "digits"; "" for none.
    config.evaluation.suite = ""
    # Whether to compute metrics that need pretrained networks (requirements-metrics.txt).
    config.evaluation.full_metrics = False
    # For full_metrics: file of pytorch-fid's weights, for FID.
    config.evaluation.inception_weights = ""
    # For full_metrics: folder of a CLIP model in Hugging Face format.
    config.evaluation.clip_dir = ""
    # Maximum numbers of forward passes per document (NFE); samples are evaluated with each of them.
    config.evaluation.nfe = (16,)

    config.sampling = ml_collections.ConfigDict()
    config.sampling.num_samples = 4  # documents per prompt
    config.sampling.preview_every = 0  # steps between previews during training; 0: none
    config.sampling.steps = 8  # of the solver; Heun's method takes 2 * 8 - 1 = 15 forward passes
    # Or "euler", "midpoint", "tsit5", "dopri5", "renoise"; with flow_map also "jump" and
    # "consistency".
    config.sampling.solver = "heun"
    config.sampling.time_grid = "cosine"  # or "uniform", "sine", "quadratic", "cubic", "learned"
    config.sampling.image_guidance_scale = 1.0  # guidance of images by text; 1 disables it
    config.sampling.text_guidance_scale = 1.0  # guidance of text by images; 1 disables it
    # oneflow with "renoise" or "consistency": probability above which a token is final; 1: none is.
    config.sampling.confidence_threshold = 1.0
    config.sampling.temperature = 1.0  # temperature of text tokens, except for oneflow
    config.sampling.top_p = 1.0  # sample from the most likely tokens with this total probability
    config.sampling.top_k = 0  # sample from this number of most likely tokens; 0: from all
    # Order in which mask_flow unmasks tokens; or "confidence".
    config.sampling.unmask_order = "random"
    config.sampling.remask_prob = 0.0  # probability per step that mask_flow masks a token again
    config.sampling.edit_start = 0.8  # time t at which editing starts from a document
    config.sampling.seed = 0
    config.sampling.prompts = ("<text> <image>",)
    return config


def set_paradigm(config: ml_collections.ConfigDict, paradigm: str) -> None:
    """Set the paradigm and the keys that depend on it; the sampler suits a small NFE."""
    config.paradigm.name = paradigm
    if paradigm == "oneflow":
        return
    config.sampling.solver = "euler"  # tokens change discretely, which other solvers do not support
    config.sampling.steps = 16
    config.sampling.time_grid = "uniform"
    config.sampling.temperature = 0.7  # low, because a sampled token cannot be changed later
    if paradigm == "edit_flow":
        config.data.text_slot_multiple = 0
        config.sampling.time_grid = "sine"  # small last steps, as a gap gets one token per step
    if paradigm in ("chameleon", "dalle", "transfusion", "language", "lmfusion"):
        config.data.text_slot_multiple = 0
    if paradigm == "chameleon":
        config.paradigm.text_weight = config.paradigm.image_weight = 1.0
    if paradigm == "dalle":
        config.paradigm.text_weight, config.paradigm.image_weight = 1 / 8, 7 / 8
    if paradigm == "language":
        config.optimizer.freeze = two_tower.IMAGE_PARAMS
    if paradigm == "lmfusion":
        config.optimizer.freeze = two_tower.TEXT_PARAMS
    if paradigm in ("transfusion", "language", "lmfusion"):
        config.sampling.solver = "heun"  # of images; each text token takes one forward pass
        config.sampling.steps = 5
        config.sampling.time_grid = "cosine"


def latent_codec(path: str, pixels: int, patch: int) -> ml_collections.ConfigDict:
    """Return the configuration of a VAE codec; `path` is a folder with a diffusers autoencoder."""
    codec = ml_collections.ConfigDict()
    codec.name = "vae"
    codec.path = path
    codec.pixels = pixels  # height and width of an image
    codec.patch_size = patch  # height and width of a slot, in latents
    codec.divisor = 1.0  # latents, first normalized to unit variance, are divided by this
    return codec


def vq_codec(path: str, pixels: int) -> ml_collections.ConfigDict:
    """Return the configuration of a VQModel codec, for chameleon and dalle."""
    return ml_collections.ConfigDict({"name": "vq", "path": path, "pixels": pixels})


def shrink_for_debugging(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Shrink any configuration to two training steps that take seconds."""
    config.platform = "any"
    config.steps = 2
    config.batch_size = 8
    config.grad_accum_steps = min(config.grad_accum_steps, 2)
    config.data.num_streams = min(config.data.num_streams, 2)
    config.mesh.update({"slices": 1, "data": -1, "fsdp": 1, "context": 1, "tensor": 1})
    if "autoencoder" in config:
        return _shrink_codec(config)
    config.model.update(transformer_config(layers=2, width=32, heads=2))
    # In a run of two steps, compilation takes most of the time. A loop over the layers compiles
    # faster than unrolled layers.
    config.model.scan_unroll = 1
    config.model.dtype = "float32"
    if "documents" in config.source:
        config.source.documents = 64
        config.source.held_out_documents = 64
        config.source.concepts = 16
    if "names" in config.source:
        config.source.names = ()
    if config.codec.name == "patches":
        config.codec.pixels = min(config.codec.pixels, 4 * config.codec.patch_size)
    config.data.sequence_length = min(config.data.sequence_length, 256)
    config.data.num_workers = 0
    config.data.num_prepare_workers = 1
    config.choose = ()
    config.optimizer.warmup_steps = 1
    config.logging.every = 1
    config.evaluation.update(
        {"every": 2, "time_bins": 2, "nfe": (2,), "num_samples": 8, "batch_size": 8}
    )
    config.evaluation.loss_documents = min(config.evaluation.loss_documents, 8)
    config.checkpoint.every = 2
    config.sampling.update({"steps": 2, "num_samples": 1})
    return config


def _shrink_codec(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config.source.update({"documents": 16, "held_out_documents": 8, "concepts": 16, "pixels": 32})
    config.autoencoder.block_out_channels = (8,) * len(config.autoencoder.block_out_channels)
    if "num_vq_embeddings" in config.autoencoder:
        config.autoencoder.num_vq_embeddings = 16
    config.optimizer.warmup_steps = 1
    config.logging.every = 1
    config.evaluation.update({"every": 2, "num_samples": 12, "pca_images": 16, "batch_size": 8})
    config.checkpoint.every = 2
    return config


def transformer_config(
    layers: int, width: int, heads: int, kv_heads: int | None = None, hidden: int | None = None
) -> ml_collections.ConfigDict:
    """Return the configuration of a float32 transformer with unrolled layers, for CPUs."""
    model = ml_collections.ConfigDict()
    model.layers = layers
    model.width = width
    model.heads = heads
    model.kv_heads = kv_heads or heads
    model.head_width = width // heads
    model.hidden = hidden or round(width * 8 / 3 / 64) * 64
    model.embed_width = min(width, 128)
    # Whether a linear map follows the token embeddings; without it, embed_width equals width.
    model.embed_projection = True
    # Whether the heads over the vocabulary use the token embeddings as weights, without a bias;
    # then embed_width equals width.
    model.tied_embeddings = False
    model.qk_norm = True  # whether queries and keys are normalized
    model.qkv_bias = False  # whether the projections of queries, keys and values add a bias
    model.norm_eps = 1e-6  # added to the mean square in norms
    model.post_norms = False  # whether a norm also follows attention and the MLP
    model.activation = "silu"  # activation of the MLP; or "gelu_tanh"
    model.embed_scale = 1.0  # factor of the token embeddings at the input of the first layer
    # Limits of the soft caps of attention scores and of logits over the vocabulary; 0: none.
    model.score_cap = 0.0
    model.logit_cap = 0.0
    # Number of keys that a query attends to in local layers; 0: all layers are global. Every layer
    # whose number is a multiple of `global_every` is global, too.
    model.sliding_window = 0
    model.global_every = 1
    # Layout of the rotary angles; or "mrope", which rotates text as language models do
    # (nn/rope.py).
    model.rope_layout = "axial"
    model.rope_theta = 10_000.0  # longest wavelength of the reading order, divided by 2 pi
    # Scaling of the frequencies of "mrope", e.g. ("llama3", 8.0, 1.0, 4.0, 8192); (): none.
    model.rope_scaling = ()
    model.rope_local_theta = 10_000.0  # rope_theta of local layers, which have no scaling
    model.remat = "none"
    model.scan_unroll = layers
    model.dtype = "float32"
    # Implementation of attention: "auto" chooses one for the platform and the length of rows. Or
    # "xla", "blockwise", "splash", "triton", "cudnn": see nn/attention_ops.py.
    model.attention = "auto"
    return model
