"""Report of `--mode=aot`: summary lines, a table, and advice for programs that do not fit."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from oneflow_jax.costs.chips import GIB
from oneflow_jax.viewer import memory_bars

COLUMNS = (
    "topology", "chips", "mesh", "rows", "state", "temporaries", "HBM", "of", "TFLOP", "sent",
    "roofline", "MFU", "scheduled", "MFU", "hours", "sampling",
)  # fmt: skip

LEGEND = (
    "Per chip, in GiB: state (parameters, Adam moments, EMA), temporaries, HBM that training\n"
    "needs, HBM that a program may use (of), and HBM that sampling needs. Per step: TFLOP of\n"
    "each chip, GB that it sends, seconds and MFU by roofline and by the TPU compiler's cycle\n"
    "estimates (scheduled). Hours are for all steps, by cycle estimates. Details: docs/tpu.md and\n"
    "docs/gpu.md. Ignore libtpu's message about host bounds."
)

MAX_TRAFFIC_ROWS = 12
"""Maximum number of rows of traffic in the table; `aot.json` has all of them."""


def summary_line(name: str, metrics: Mapping[str, Any]) -> str:
    """Summarize the metrics of one topology in a line."""
    parts = [f"{name}: {metrics['chips']} chips"]
    if "hbm_bytes_per_chip" in metrics:
        parts.append(f"training {_format_gib(metrics['hbm_bytes_per_chip'])} GiB per chip")
    if "sampling" in metrics:
        parts.append(f"sampling {_format_gib(metrics['sampling']['hbm_bytes_per_chip'])} GiB")
    if "roofline_mfu" in metrics:
        parts.append(f"MFU {metrics['roofline_mfu']:.0%} by roofline")
    return ", ".join(parts)


def format_table(metrics_by_topology: Mapping[str, Mapping[str, Any]]) -> str:
    """Format a table with one row per topology, and the traffic of the last topology."""
    rows = [COLUMNS, *(_table_row(name, metrics) for name, metrics in metrics_by_topology.items())]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(n) for cell, n in zip(row, widths, strict=True)) for row in rows]
    lines += ["", LEGEND]
    last, metrics = list(metrics_by_topology.items())[-1]
    if metrics.get("traffic"):
        lines += ["", f"Traffic that each chip of {last} sends per step:"]
        lines += [
            f"{one['bytes'] / 1e9:9.3f} GB  {one['count']:>5} x {one['kind']:18} {one['role']:11} "
            f"{one['module']}"
            for one in metrics["traffic"][:MAX_TRAFFIC_ROWS]
        ]
    return "\n".join(lines)


def plot_memory(
    path: epath.Path, name: str, metrics_by_topology: Mapping[str, Mapping[str, Any]]
) -> None:
    """Plot the memory of a chip by category: one bar per topology and program."""
    rows, limits = {}, {}
    for topology, metrics in metrics_by_topology.items():
        limit = metrics["hbm_limit_bytes"]
        for program, program_metrics in {
            "training": metrics,
            "sampling": metrics.get("sampling", {}),
        }.items():
            if "categories" in program_metrics:
                row = f"{topology} {program}"
                rows[row] = {key: size / GIB for key, size in program_metrics["categories"].items()}
                limits[row] = limit and limit / GIB
    memory_bars.plot_bars(path, rows, limits, f"{name}: memory per chip")


def oom_messages(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """Return one message for each program that exceeds a chip's memory, with a suggestion."""
    messages = []
    programs = {"training": metrics, "sampling": metrics.get("sampling", {})}
    limit = metrics["hbm_limit_bytes"]
    for program, program_metrics in programs.items():
        needed = program_metrics.get("hbm_bytes_per_chip")
        if needed is None or (program_metrics["fits"] and (limit is None or needed <= limit)):
            continue
        room = "it does not fit" if limit is None else f"a chip has {_format_gib(limit)} GiB"
        messages.append(
            f"{name}: {program} needs {_format_gib(needed)} GiB per chip; {room}. "
            f"{_suggestion(program, metrics, program_metrics)}"
        )
    return messages


def _suggestion(
    program: str, metrics: Mapping[str, Any], program_metrics: Mapping[str, Any]
) -> str:
    categories = program_metrics["categories"]
    state = sum(categories.get(name, 0) for name in ("parameters", "moments", "average"))
    if program == "sampling":
        return "Reduce evaluation.batch_size or data.sequence_length, or use more chips."
    if state > program_metrics["hbm_bytes_per_chip"] / 2:
        wider = min(2 * metrics["mesh"]["fsdp"], metrics["chips"])
        if wider > metrics["mesh"]["fsdp"]:
            return f"Shard the state further with --config.mesh.fsdp={wider}, or use more chips."
        return "The state alone does not fit this number of chips. Use more chips."
    return (
        f"Store fewer activations with --config.model.remat=full, use more microbatches with "
        f"--config.grad_accum_steps={2 * metrics['grad_accum_steps']}, or reduce batch_size."
    )


def _table_row(name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    categories = metrics.get("categories", {})
    state = sum(categories.get(key, 0) for key in ("parameters", "moments", "average"))
    sent = sum(traffic["bytes"] for traffic in metrics.get("collectives", {}).values())
    spread = {axis: size for axis, size in metrics["mesh"].items() if size > 1}
    mesh = ",".join(f"{axis}={size}" for axis, size in spread.items()) or "alone"
    sampling = metrics.get("sampling", {})
    return (
        name,
        str(metrics["chips"]),
        mesh,
        str(metrics["batch"]),
        _format_gib(state or None),
        _format_gib(categories.get("temporaries")),
        _format_gib(metrics.get("hbm_bytes_per_chip")) + _fit_mark(metrics),
        _format_gib(metrics["hbm_limit_bytes"]),
        _format_number(metrics.get("flops_per_chip"), 1e12, 1),
        _format_number(sent, 1e9, 1) + " GB",
        _format_number(metrics.get("roofline_seconds"), 1, 3),
        _format_percent(metrics.get("roofline_mfu")),
        _format_number(metrics.get("scheduled_seconds"), 1, 3),
        _format_percent(metrics.get("scheduled_mfu")),
        _format_number(metrics.get("scheduled_hours"), 1, 1),
        _format_gib(sampling.get("hbm_bytes_per_chip")) + _fit_mark(sampling),
    )


def _fit_mark(metrics: Mapping[str, Any]) -> str:
    return "" if metrics.get("fits", True) else " FULL"


def _format_gib(value: float | None) -> str:
    return _format_number(value, GIB, 1)


def _format_percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _format_number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"
