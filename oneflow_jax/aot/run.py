"""`--mode=aot`: compile a run's programs for TPU slices or GPU nodes; report memory and costs."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any

from etils import epath

from oneflow_jax.aot import (
    PROGRAMS,
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
from oneflow_jax.build import aot_config
from oneflow_jax.build import system as system_lib
from oneflow_jax.costs import flops
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir


def run(
    config: workdir.Config,
    folder: epath.Path,
    topology_names: Sequence[str],
    *,
    per_device_batch: int | None = None,
    program_names: Sequence[str] = PROGRAMS,
) -> None:
    """Compile for each topology, print a table, and write the metrics to the folder.

    Args:
        config: configuration of a document model.
        folder: folder to write `aot.json` and the memory plot to.
        topology_names: names of topologies; if empty, the names in `config.aot_topologies`.
        per_device_batch: rows per chip; None for the configured `batch_size`.
        program_names: names of `PROGRAMS` to compile.

    Raises:
        UserError: a topology's name or a value of the configuration is invalid; or, after all
            programs have been compiled, a program does not fit a chip's memory.
    """
    chosen = [topologies.parse_topology(name) for name in topology_names or config.aot_topologies]
    if not chosen:
        raise UserError(
            "--topology is missing, and config.aot_topologies is empty. Give a TPU slice or a GPU "
            "node, e.g. --topology=v4-64 or --topology=h100-8."
        )
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
    print(f"Metrics: {folder / workdir.AOT_REPORT}")
    print(f"Plot of memory: {folder / workdir.AOT_MEMORY_PLOT}")
    problems = [line for name in figures for line in report.oom_messages(name, figures[name])]
    if problems:
        raise UserError("\n".join(["Not all programs fit:", *problems]))


def topology_report(
    config: workdir.Config,
    topology: Topology,
    *,
    per_device_batch: int | None = None,
    program_names: Sequence[str] = PROGRAMS,
) -> dict[str, Any]:
    """Compile for one topology, and return its metrics in the form of `aot.json`.

    Raises:
        UserError: the configuration does not fit the number of devices.
    """
    devices = topology.devices()
    config = aot_config.fit_config(config, len(devices), topology.num_slices, per_device_batch)
    system = system_lib.abstract_system(config, devices)
    metrics: dict[str, Any] = {
        "chips": len(devices),
        "mesh": dict(system.mesh.shape),
        "batch": config.batch_size,
        "grad_accum_steps": config.grad_accum_steps,
        "hbm_limit_bytes": topology.memory_limit,
    }
    if "train" in program_names:
        metrics |= _train_report(system, topology)
    if "sample" in program_names:
        metrics["sampling"] = _sample_report(system)
    return metrics


def _train_report(system: system_lib.System, topology: Topology) -> dict[str, Any]:
    compiled = compile.compile_train_step(system)
    metrics = _memory_report(compiled)
    config, network = system.config, flops.from_model(system.model, system.layout.codec.channels)
    model_flops = flops.train(network, config.batch_size, system.layout.length)
    metrics["parameters"] = network.num_parameters
    metrics["model_flops_per_chip"] = model_flops / system.mesh.size
    if not compiled.text:
        return metrics
    program = hlo.parse(compiled.text)
    done = op_costs.sum_op_costs(program, topology.chip)
    if program.dynamic_loops or done.flops < 0.97 * metrics["model_flops_per_chip"]:
        logging.warning(
            "The program was not parsed completely: %d loops have an unknown trip count, and %.3g "
            "of %.3g FLOPs were found. FLOPs, bytes, traffic and seconds are underestimates.",
            *(len(program.dynamic_loops), done.flops, metrics["model_flops_per_chip"]),
        )
    slices = sharding.slice_indices([*system.mesh.devices.flat]) or [0] * system.mesh.size
    program_collectives = collectives.find_collectives(program, slices)
    traffic = collective_roles.aggregate(program_collectives, system)
    metrics |= {
        "flops_per_chip": done.flops,
        "bytes_per_chip": done.bytes,
        "collectives": collectives.sum_by_kind(program_collectives),
        "traffic": [dataclasses.asdict(one) for one in traffic],
        "activations_gathered": sum(
            one.bytes for one in traffic if one.role == collective_roles.ACTIVATIONS
        ),
        "between_slices": sum(one.bytes for one in program_collectives if one.num_slices > 1),
    }
    if topology.chip:
        step_estimate = roofline.estimate(
            done, program_collectives, topology.chip, system.mesh.size, model_flops
        )
        metrics |= {
            "roofline_seconds": step_estimate.step_s,
            "roofline_mfu": step_estimate.mfu,
            "computing_seconds": step_estimate.compute_s,
            "sending_seconds": step_estimate.comm_s,
        }
        if step_estimate.compiler_s is not None:
            seconds = step_estimate.compiler_s + step_estimate.comm_s
            metrics |= {
                "scheduled_seconds": seconds,
                "scheduled_hours": config.steps * seconds / 3600,
                "scheduled_mfu": step_estimate.compiler_mfu,
            }
    return metrics


def _sample_report(system: system_lib.System) -> dict[str, Any]:
    config = system.config
    ways = sharding.num_shards(system.mesh, "rows", sharding.SAMPLING_RULES)
    rows = -(-config.evaluation.batch_size // ways) * ways
    return {"batch": rows, **_memory_report(compile.compile_sampler(system, rows))}


def _memory_report(compiled: compile.CompiledProgram) -> dict[str, Any]:
    return {
        "fits": compiled.memory.fits,
        "hbm_bytes_per_chip": compiled.memory.total,
        "categories": compiled.memory.categories,
    }
