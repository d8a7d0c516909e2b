"""The text of a compiled program, read as what it runs and how often.

XLA's `cost_analysis` counts the body of a loop once, however often it runs, and tells nothing of
what goes between chips. Its text tells both: each instruction has its shapes, and each loop, of
those that `jax.lax.scan` makes, a condition that compares a counter with a constant.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES_PER_ELEMENT = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0, "opaque": 0}
"""Bytes of a number, where its name does not tell its bits."""

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
    """One array: the type of its numbers, its dimensions, and whether it lies on the chip's HBM."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool = True

    @property
    def bytes(self) -> float:
        """Without padding."""
        bits = re.search(r"\d+", self.dtype)
        width = BYTES_PER_ELEMENT.get(self.dtype, int(bits[0]) / 8 if bits else 0)
        return width * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the program.

    Attributes:
        name, opcode: as written.
        shapes: of its results.
        operands: names of the instructions whose results it takes.
        rest: its attributes, as written.
        root: whether its result is that of its computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    rest: str
    root: bool

    @property
    def path(self) -> str:
        """Where in the model it comes from, as JAX tells it."""
        found = _PATH.search(self.rest)
        return found[1] if found else ""

    @property
    def callees(self) -> tuple[str, ...]:
        """Names of the computations that it runs or applies."""
        branches = _BRANCHES.search(self.rest)
        more = _NAMES.findall(branches[1]) if branches else []
        return (*_CALLEES.findall(self.rest.partition(", metadata=")[0]), *more)


Computation = dict[str, Instruction]
"""Instructions by name, in order."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A whole program: computations by name, one of them the entry."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs in one call; those inside fusions count too.

        A loop of unknown length counts as one round: see `unknown_loops`. Both branches of a
        conditional count.
        """
        runs: dict[str, int] = {}
        self._visit(self.entry, 1, runs)
        return runs

    @functools.cached_property
    def unknown_loops(self) -> tuple[str, ...]:
        """Names of loops whose number of rounds the program does not tell beforehand."""
        return tuple(
            line.name
            for name in self.times
            for line in self.computations[name].values()
            if line.opcode == "while" and self._rounds(line) is None
        )

    def running(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction outside of fusions with its computation, and how often it runs."""
        for name, times in self.times.items():
            if name not in self.fusions:
                for line in self.computations[name].values():
                    yield self.computations[name], line, times

    @functools.cached_property
    def fusions(self) -> dict[str, Instruction]:
        """The computations that are fusions, by name, each with the instruction that runs it."""
        return {
            called: line
            for computation in self.computations.values()
            for line in computation.values()
            if line.opcode == "fusion"
            for called in line.callees
        }

    def _visit(self, name: str, times: int, runs: dict[str, int]) -> None:
        runs[name] = runs.get(name, 0) + times
        for line in self.computations[name].values():
            if line.opcode == "while":
                body = re.search(r"body=%?([\w.\-]+)", line.rest)
                self._visit(body[1], times * (self._rounds(line) or 1), runs)
            elif line.opcode in ("fusion", "call", "conditional", "async-start"):
                for called in line.callees:
                    self._visit(called, times, runs)

    def _rounds(self, loop: Instruction) -> int | None:
        """How often the body of a loop runs, if that is known."""
        known = _KNOWN_TRIP_COUNT.search(loop.rest)
        if known:
            return int(known[1])
        condition, body = (
            self.computations[re.search(rf"{part}=%?([\w.\-]+)", loop.rest)[1]]
            for part in ("condition", "body")
        )
        ends, done = root_instruction(condition), root_instruction(body)
        if ends.opcode != "compare" or "direction=LT" not in ends.rest:
            return None
        counter, limit = (condition.get(name) for name in ends.operands)
        place = re.search(r"index=(\d+)", counter.rest) if counter else None
        if place is None or limit is None or limit.opcode != "constant":
            return None
        # Counters begin at zero; XLA unrolls some loops, and counts on by two.
        after = body[done.operands[int(place[1])]]
        steps = [body[name] for name in after.operands if name in body]
        steps = [int(line.operands[0]) for line in steps if line.opcode == "constant"]
        if after.opcode != "add" or len(steps) != 1:
            return None
        return -(-int(limit.operands[0]) // steps[0])


def root_instruction(computation: Computation) -> Instruction:
    """The instruction whose result is that of the computation."""
    (last,) = (line for line in computation.values() if line.root)
    return last


def parse(text: str) -> Program:
    """The program in the text that `Compiled.as_text` gives."""
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
        elif current:  # Kernels tell of themselves in several lines.
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
        shapes=tuple(_parse_shape(found) for found in _SHAPE.finditer(types)),
        operands=tuple(operands),
        rest=rest,
        root=left.startswith("ROOT "),
    )


def _parse_shape(match: re.Match[str]) -> Shape:
    dims = tuple(int(n) for n in match[2].split(",") if n)
    # S(0), or none, is HBM; others are memories on the chip.
    return Shape(match[1], dims, not re.search(r"S\([1-9]", match[3] or ""))


def _closing_paren(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` is closed."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"unbalanced: {text[:80]}")
