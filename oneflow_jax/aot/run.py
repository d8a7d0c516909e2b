"""`--mode=compile`: the programs of a run compiled for TPU slices, and what that tells of them."""

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.aot import (
    collective_roles,
    collectives,
    compile,
    hlo,
    op_costs,
    report,
    roofline,
    topologies,
)
from oneflow_jax.aot.topologies import Topology
from oneflow_jax.build import system as system_lib
from oneflow_jax.costs import flops
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir

PROGRAMS = ("train", "sample")


def run(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    topology_names: Sequence[str],
    *,
    per_device_batch: int | None = None,
    program_names: Sequence[str] = PROGRAMS,
) -> None:
    """Compiles for each topology, prints a table, and keeps its figures in the folder.

    Args:
        config: of a model of documents.
        folder: where `compile.json` goes.
        topology_names: of topologies; those of the configuration if there is none.
        per_device_batch: the batch is so many rows for each chip; without it, the configured one.
        program_names: of `PROGRAMS`.

    Raises:
        UserError: a name or a value is wrong, or a program does not fit a chip's memory; that is
            told after all have been compiled.
    """
    chosen = [topologies.parse_topology(name) for name in topology_names or config.topologies]
    if not chosen:
        raise UserError("--topology is missing, and config.topologies is empty: give e.g. v4-64.")
    figures = {}
    for topology in chosen:
        logging.info("Compiling %s for %s.", config.name, topology.name)
        figures[topology.name] = topology_report(
            config, topology, per_device_batch=per_device_batch, program_names=program_names
        )
        print(report.summary_line(topology.name, figures[topology.name]), flush=True)
    workdir.write_atomically(folder / workdir.AOT_REPORT, json.dumps(figures, indent=1) + "\n")
    report.plot_memory(folder / workdir.AOT_MEMORY_PLOT, config.name, figures)
    print(report.format_table(figures))
    print(f"Figures: {folder / workdir.AOT_REPORT}")
    print(f"Memory: {folder / workdir.AOT_MEMORY_PLOT}")
    problems = [line for name in figures for line in report.oom_messages(name, figures[name])]
    if problems:
        raise UserError("\n".join(["not everything fits:", *problems]))


def topology_report(
    config: ml_collections.ConfigDict,
    topology: Topology,
    *,
    per_device_batch: int | None = None,
    program_names: Sequence[str] = PROGRAMS,
) -> dict[str, Any]:
    """All there is to tell of one topology, as it stands in `compile.json`.

    Raises:
        UserError: the configuration does not go with so many devices.
    """
    devices = topology.devices()
    config = fit_config(config, len(devices), topology.slices, per_device_batch)
    system = system_lib.abstract_system(config, devices)
    told: dict[str, Any] = {
        "chips": len(devices),
        "mesh": dict(system.mesh.shape),
        "batch": config.batch,
        "parts": config.parts,
        "hbm_limit_bytes": topology.chip.memory if topology.chip else None,
    }
    if "train" in program_names:
        told |= _train_report(system, topology)
    if "sample" in program_names:
        told["sampling"] = _sample_report(system)
    return told


def fit_config(
    config: ml_collections.ConfigDict, num_chips: int, num_slices: int, per_device_batch: int | None
) -> ml_collections.ConfigDict:
    """The configuration for so many chips: as many slices, fsdp within one, the batch as asked."""
    config = ml_collections.ConfigDict(config.to_dict())
    fits = {"slices": num_slices, "fsdp": math.gcd(config.mesh.fsdp, num_chips // num_slices)}
    for axis, size in fits.items():
        if size != config.mesh[axis]:
            logging.warning(
                "mesh.%s=%d does not fit: compiled with %d, which training there needs too, by "
                "--config.mesh.%s=%d.",
                *(axis, config.mesh[axis], size, axis, size),
            )
            config.mesh[axis] = size
    if per_device_batch:
        config.batch = per_device_batch * num_chips
    return config.lock()


def _train_report(system: system_lib.System, topology: Topology) -> dict[str, Any]:
    compiled = compile.compile_train_step(system)
    told = _memory_report(compiled)
    config, network = system.config, flops.from_model(system.model, system.layout.codec.channels)
    model_flops = flops.train(network, config.batch, system.layout.length)
    told["parameters"] = network.parameters
    told["model_flops_per_chip"] = model_flops / system.mesh.size
    if not compiled.text:
        return told
    program = hlo.parse(compiled.text)
    done = op_costs.sum_op_costs(program, topology.chip)
    if program.unknown_loops or done.flops < 0.97 * told["model_flops_per_chip"]:
        logging.warning(
            "The program was not understood: %d loops of unknown length, %.3g FLOPs read of %.3g; "
            "FLOPs, bytes, what is sent and seconds are too few.",
            *(len(program.unknown_loops), done.flops, told["model_flops_per_chip"]),
        )
    slices = [getattr(device, "slice_index", 0) or 0 for device in system.mesh.devices.flat]
    found = collectives.find_collectives(program, slices)
    traffic = collective_roles.aggregate(found, system)
    told |= {
        "flops_per_chip": done.flops,
        "bytes_per_chip": done.bytes,
        "collectives": collectives.sum_by_kind(found),
        "traffic": [dataclasses.asdict(one) for one in traffic],
        "activations_gathered": sum(
            one.bytes for one in traffic if one.role == collective_roles.ACTIVATIONS
        ),
        "between_slices": sum(one.bytes for one in found if one.slices > 1),
    }
    if topology.chip:
        guess = roofline.estimate(done, found, topology.chip, system.mesh.size, model_flops)
        told |= {
            "roofline_seconds": guess.seconds,
            "roofline_mfu": guess.mfu,
            "computing_seconds": guess.computing,
            "sending_seconds": guess.sending,
            "scheduled_seconds": guess.scheduled + guess.sending,
            "scheduled_hours": config.steps * (guess.scheduled + guess.sending) / 3600,
            "scheduled_mfu": guess.scheduled_mfu,
        }
    return told


def _sample_report(system: system_lib.System) -> dict[str, Any]:
    config = system.config
    ways = sharding.num_shards(system.mesh, "rows", sharding.SAMPLING_RULES)
    rows = -(-config.evaluation.batch // ways) * ways
    return {"batch": rows, **_memory_report(compile.compile_sampler(system, rows))}


def _memory_report(compiled: compile.CompiledProgram) -> dict[str, Any]:
    return {
        "fits": compiled.memory.fits,
        "hbm_bytes_per_chip": compiled.memory.total,
        "categories": compiled.memory.categories,
    }
