"""Parser of optimized HLO text: instructions, and how often each instruction runs.

XLA's `cost_analysis` counts the body of a loop once, regardless of the trip count, and does not
report communication. The HLO text shows trip counts and communication: each instruction has its
shapes, and the loop of a `jax.lax.scan` has a condition that compares a counter with a constant.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES_PER_ELEMENT = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0, "opaque": 0}
"""Bytes per element of types that are smaller than a byte or have no number of bits in the name."""

_SHAPE = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION_START = re.compile(r"^\s+(ROOT )?%?[\w.\-]+ = ")
_NAMES = re.compile(r"%([\w.\-]+)")
_CALLEES = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_PATH = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Shape:
    """Type and dimensions of an array; `in_hbm` is False if it is stored in on-chip memory."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool = True

    @property
    def bytes(self) -> float:
        """Size in bytes, without padding."""
        bits = re.search(r"\d+", self.dtype)
        width = BYTES_PER_ELEMENT.get(self.dtype, int(bits[0]) / 8 if bits else 0)
        return width * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: one line of the program's text.

    Attributes:
        name, opcode: name and opcode in the text.
        shapes: shapes of the instruction's results.
        operands: names of the instructions whose results are the operands.
        attributes: text after the operands, for example "calls=%body, metadata={...}".
        is_root: whether the result is also the result of the whole computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def path(self) -> str:
        """JAX op path, which names the module of the instruction; "" if the text has none."""
        match = _PATH.search(self.attributes)
        return match[1] if match else ""

    @property
    def callees(self) -> tuple[str, ...]:
        """Names of the computations that the instruction calls or applies."""
        branches = _BRANCHES.search(self.attributes)
        more = _NAMES.findall(branches[1]) if branches else []
        return (*_CALLEES.findall(self.attributes.partition(", metadata=")[0]), *more)


Computation = dict[str, Instruction]
"""Instructions of one computation by name, in the order of the text."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A whole program: computations by name, and the name of the entry computation."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def run_counts(self) -> dict[str, int]:
        """Number of runs of each computation, fused ones included, in one call of the program.

        A loop whose trip count is unknown (`dynamic_loops`) counts as one iteration. All branches
        of a conditional are counted.
        """
        runs: dict[str, int] = {}
        self._count_runs(self.entry, 1, runs)
        return runs

    @functools.cached_property
    def dynamic_loops(self) -> tuple[str, ...]:
        """Names of the loops whose trip count is unknown at compile time."""
        return tuple(
            line.name
            for name in self.run_counts
            for line in self.computations[name].values()
            if line.opcode == "while" and self._trip_count(line) is None
        )

    def iter_instructions(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Yield (computation, instruction, number of runs) of each instruction outside fusions."""
        for name, times in self.run_counts.items():
            if name not in self.fusions:
                for line in self.computations[name].values():
                    yield self.computations[name], line, times

    @functools.cached_property
    def fusions(self) -> dict[str, Instruction]:
        """Fused computations by name, each with the fusion instruction that calls it."""
        return {
            called: line
            for computation in self.computations.values()
            for line in computation.values()
            if line.opcode == "fusion"
            for called in line.callees
        }

    def _count_runs(self, name: str, count: int, runs: dict[str, int]) -> None:
        runs[name] = runs.get(name, 0) + count
        for line in self.computations[name].values():
            if line.opcode == "while":
                body = re.search(r"body=%?([\w.\-]+)", line.attributes)
                self._count_runs(body[1], count * (self._trip_count(line) or 1), runs)
            elif line.opcode in ("fusion", "call", "conditional", "async-start"):
                for called in line.callees:
                    self._count_runs(called, count, runs)

    def _trip_count(self, loop: Instruction) -> int | None:
        """Return the trip count of a loop, or None if it is unknown."""
        known = _KNOWN_TRIP_COUNT.search(loop.attributes)
        if known:
            return int(known[1])
        condition, body = (
            self.computations[re.search(rf"{part}=%?([\w.\-]+)", loop.attributes)[1]]
            for part in ("condition", "body")
        )
        ends, done = root_instruction(condition), root_instruction(body)
        if ends.opcode != "compare" or "direction=LT" not in ends.attributes:
            return None
        counter, limit = (condition.get(name) for name in ends.operands)
        place = re.search(r"index=(\d+)", counter.attributes) if counter else None
        if place is None or limit is None or limit.opcode != "constant":
            return None
        # Counters start at 0. If XLA has unrolled the loop, the counter's increment is above 1.
        after = body[done.operands[int(place[1])]]
        steps = [body[name] for name in after.operands if name in body]
        steps = [int(line.operands[0]) for line in steps if line.opcode == "constant"]
        if after.opcode != "add" or len(steps) != 1:
            return None
        return -(-int(limit.operands[0]) // steps[0])


def root_instruction(computation: Computation) -> Instruction:
    """Return the instruction whose result is the result of the computation."""
    (last,) = (line for line in computation.values() if line.is_root)
    return last


def parse(text: str) -> Program:
    """Parse the text of a program, in the format of `Compiled.as_text`."""
    written: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _COMPUTATION_HEADER.match(line)
        if header:
            current = written.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line == "}":
            current = None
        elif current is not None and _INSTRUCTION_START.match(line):
            current.append(line)
        elif current:  # Kernels have further lines of attributes.
            current[-1] += line
    computations = {
        name: {one.name: one for one in map(_parse_instruction, lines)}
        for name, lines in written.items()
    }
    return Program(computations, entry)


def _parse_instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    end = _closing_paren(right, 0) + 1 if right.startswith("(") else right.index(" ")
    types, right = right[:end], right[end:].strip()
    opcode, _, _ = right.partition("(")
    close = _closing_paren(right, len(opcode))
    inside, rest = right[len(opcode) + 1 : close], right[close + 1 :]
    operands = [inside] if opcode in ("constant", "parameter") else _NAMES.findall(inside)
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode,
        shapes=tuple(_parse_shape(match) for match in _SHAPE.finditer(types)),
        operands=tuple(operands),
        attributes=rest,
        is_root=left.startswith("ROOT "),
    )


def _parse_shape(match: re.Match[str]) -> Shape:
    dims = tuple(int(n) for n in match[2].split(",") if n)
    # Without a memory space, or with S(0), the array is in HBM; other spaces are on-chip.
    return Shape(match[1], dims, not re.search(r"S\([1-9]", match[3] or ""))


def _closing_paren(text: str, opening: int) -> int:
    """Return the index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"unbalanced parentheses: {text[:80]}")
