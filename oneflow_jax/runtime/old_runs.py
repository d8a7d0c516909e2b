"""Values of keys that are missing in the saved configurations of earlier versions."""

DEFAULTS = {
    "checkpoint.skip_damaged": False,
    "checkpoint.keep_best": False,
    "checkpoint.use": "newest",
    "profile_steps": (),
    "compilation_cache": False,
    "aot_topologies": (),
    "checkpoint.keep_period": 0,
    "logging.wandb_project": "",
    "logging.mlflow_uri": "",
    "checkpoint.minutes": 0.0,
    "checkpoint.broadcast_min_gb": 0.0,
    "data.num_streams": 1,
    "data.num_prepare_workers": 1,
    "data.shard_megabytes": 256,
    "optimizer.freeze": "",
    "optimizer.name": "adamw",
    "mesh.slices": 1,
    "mesh.context": 1,
}
"""Values of keys that are missing in configurations which earlier versions saved."""

DOCUMENT_DEFAULTS = {
    "init_from": "",
    "data.character_coverage": 1.0,
    "data.overflow": "error",
    "data.aspect_ratios": ("1:1",),
    "model.attention": "xla",
    "model.embed_projection": True,
    "model.tied_embeddings": False,
    "model.qk_norm": True,
    "model.qkv_bias": False,
    "model.norm_eps": 1e-6,
    "model.post_norms": False,
    "model.activation": "silu",
    "model.embed_scale": 1.0,
    "model.score_cap": 0.0,
    "model.logit_cap": 0.0,
    "model.sliding_window": 0,
    "model.global_every": 1,
    "model.rope_layout": "axial",
    "model.rope_theta": 10_000.0,
    "model.rope_scaling": (),
    "model.rope_local_theta": 10_000.0,
    "sampling.preview_every": 0,
    "sampling.top_k": 0,
    "sampling.confidence_threshold": 1.0,
    "evaluation.loss_documents": 0,
    "evaluation.full_metrics": False,
    "evaluation.inception_weights": "",
    "evaluation.clip_dir": "",
    "paradigm.text_time_sampler": (),
    "paradigm.text_lead": 1.0,
    "paradigm.flow_map": False,
    "paradigm.tasks.own_run_times": 0.0,
    "paradigm.tasks.own_slot_times": 0.0,
    "paradigm.tasks.text_first": 0.0,
}
"""Values of keys that are missing in document model configurations which earlier versions saved."""

OWN_DATA_DEFAULTS = {"source.deduplicate": False}
"""Values of keys that are missing in configurations of own data which earlier versions saved."""
