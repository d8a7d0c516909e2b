"""What compiling told, for people: a line and a table, and what to do about what does not fit."""

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
    "Of each chip, in GiB: state (parameters, moments, averages), temporaries, what training\n"
    "takes of HBM, of what a program may use, and what sampling takes. Of a step: TFLOP of each\n"
    "chip, what it sends, seconds with their MFU, by roofline and by the compiler's own cycles\n"
    "(scheduled); hours of all steps by the latter. docs/tpu.md says how. A line of libtpu\n"
    "about host bounds means nothing here."
)

LARGEST = 12
"""Kinds of traffic that the table tells one by one; `compile.json` has all."""


def line(name: str, figures: Mapping[str, Any]) -> str:
    """One topology in a sentence."""
    told = [f"{name}: {figures['chips']} chips"]
    if "hbm_bytes_per_chip" in figures:
        told.append(f"training {_gib(figures['hbm_bytes_per_chip'])} GiB a chip")
    if "sampling" in figures:
        told.append(f"sampling {_gib(figures['sampling']['hbm_bytes_per_chip'])} GiB")
    if "roofline_mfu" in figures:
        told.append(f"MFU {figures['roofline_mfu']:.0%} by roofline")
    return ", ".join(told)


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """All topologies: a row each, GiB and seconds of a chip; then what is sent, of the last."""
    rows = [COLUMNS, *(_row(name, told) for name, told in figures.items())]
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(n) for cell, n in zip(row, widths, strict=True)) for row in rows]
    lines += ["", LEGEND]
    last, told = list(figures.items())[-1]
    if told.get("traffic"):
        lines += ["", f"What each chip of {last} sends in a step:"]
        lines += [
            f"{one['bytes'] / 1e9:9.3f} GB  {one['count']:>5} x {one['kind']:18} {one['role']:11} "
            f"{one['where']}"
            for one in told["traffic"][:LARGEST]
        ]
    return "\n".join(lines)


def draw(path: epath.Path, name: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A picture of what fills the memory of a chip of each topology, in training and sampling."""
    rows, limits = {}, {}
    for topology, told in figures.items():
        limit = told["hbm_limit_bytes"]
        for program, of in {"training": told, "sampling": told.get("sampling", {})}.items():
            if "categories" in of:
                row = f"{topology} {program}"
                rows[row] = {key: size / GIB for key, size in of["categories"].items()}
                limits[row] = limit and limit / GIB
    memory_bars.bars(path, rows, limits, f"{name}: memory of a chip")


def problems(name: str, figures: Mapping[str, Any]) -> list[str]:
    """What does not fit, each with what to do."""
    found = []
    programs = {"training": figures, "sampling": figures.get("sampling", {})}
    limit = figures["hbm_limit_bytes"]
    for program, told in programs.items():
        needed = told.get("hbm_bytes_per_chip")
        if needed is None or (told["fits"] and (limit is None or needed <= limit)):
            continue
        room = "there is" if limit is None else f"a chip has {_gib(limit)} GiB"
        found.append(
            f"{name}: {program} needs {_gib(needed)} GiB a chip, and {room}: "
            f"{_advice(program, figures, told)}"
        )
    return found


def _advice(program: str, figures: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    categories = told["categories"]
    state = sum(categories.get(name, 0) for name in ("parameters", "moments", "average"))
    if program == "sampling":
        return "take a smaller evaluation.batch or shorter data.length, or more chips."
    if state > told["hbm_bytes_per_chip"] / 2:
        wider = min(2 * figures["mesh"]["fsdp"], figures["chips"])
        if wider > figures["mesh"]["fsdp"]:
            return f"spread the state wider, by --config.mesh.fsdp={wider}, or take more chips."
        return "the state alone is too large for so few chips: take more of them."
    return (
        f"keep less for the backward pass, by --config.model.remat=full, run more microbatches, by "
        f"--config.parts={2 * figures['parts']}, or take fewer rows."
    )


def _row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    categories = figures.get("categories", {})
    state = sum(categories.get(key, 0) for key in ("parameters", "moments", "average"))
    sent = sum(of["bytes"] for of in figures.get("collectives", {}).values())
    spread = {axis: size for axis, size in figures["mesh"].items() if size > 1}
    mesh = ",".join(f"{axis}={size}" for axis, size in spread.items()) or "alone"
    sampling = figures.get("sampling", {})
    return (
        name,
        str(figures["chips"]),
        mesh,
        str(figures["batch"]),
        _gib(state or None),
        _gib(categories.get("temporaries")),
        _gib(figures.get("hbm_bytes_per_chip")) + _mark(figures),
        _gib(figures["hbm_limit_bytes"]),
        _number(figures.get("flops_per_chip"), 1e12, 1),
        _number(sent, 1e9, 1) + " GB",
        _number(figures.get("roofline_seconds"), 1, 3),
        _share(figures.get("roofline_mfu")),
        _number(figures.get("scheduled_seconds"), 1, 3),
        _share(figures.get("scheduled_mfu")),
        _number(figures.get("scheduled_hours"), 1, 1),
        _gib(sampling.get("hbm_bytes_per_chip")) + _mark(sampling),
    )


def _mark(told: Mapping[str, Any]) -> str:
    return "" if told.get("fits", True) else " FULL"


def _gib(value: float | None) -> str:
    return _number(value, GIB, 1)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"
