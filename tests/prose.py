"""Finds words that docs/glossary.md replaces, in docstrings, comments, messages and pages.

For example, to search a folder, the docs and the README:
python -m tests.prose oneflow_jax/data docs README.md
"""

import argparse
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

BANNED = {
    r"pictur(?:e|es|ed)": "image",
    r"told": "given, passed, reported, or name the actor",
    r"anew": "again",
    r"heeds?|heeded": "follow",
    r"bears|borne": "support, hold",
    r"whoever|nobody|whatever|whosoever": "name the actor",
    r"so many|none too many|as many as there are": "a number of, N",
    r"that there (?:is|are)": "available, existing",
    r"contestants?": "model",
    r"beliefs?": "x1 prediction",
    r"certaint(?:y|ies)": "confidence",
    r"slopes?": "gradient",
    r"merits?": "metric",
    r"mourn(?:s|ed|er|ers)?": "name what it does",
    r"bereft": "without a condition",
    r"birth|births|born|newborn": "insertion, inserted",
    r"fates?": "edit operation",
    r"of yours|of theirs|of ours": "your, their, our",
    r"brim": "full canvas",
    r"besides|thereby|therein|thereof|lest|ere|save for|hence|whereof": "plain words",
    r"by itself": "alone",
}
"""Words to avoid, as regular expressions of whole words, and what to write instead."""

_PROMPTS = re.compile(r"a picture of (?:\{0\}|\w+ \w+|\w+)|[Pp]icture of", re.ASCII)
"""Captions of the data sets; they are content, so their words are not checked."""

_QUOTED = re.compile(r"""(["'`])\w+\1""")
"""Single words in quotes: keys, values and names of the code."""

_PATTERN = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)


def find_banned(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word, line) for every banned word of a Python or Markdown file."""
    text = path.read_text("utf-8")
    for number, line in _prose(text) if path.suffix == ".py" else _markdown(text):
        for match in _PATTERN.finditer(_QUOTED.sub("", _PROMPTS.sub("", line))):
            yield number, match[0], line.strip()


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of comments, docstrings, and strings of four words or more."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_long = token.string.startswith('"""') or len(token.string.split()) >= 4
        is_sentence = token.type == tokenize.STRING and is_long
        if token.type == tokenize.COMMENT or is_sentence:
            # Drop the expressions of f-strings.
            text = re.sub(r"\{[^{}\n]*\}", "{}", token.string)
            yield from enumerate(text.split("\n"), token.start[0])


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside of code blocks, without code spans, addresses and HTML tags."""
    in_code = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)|</?\w[^>]*>", "", line)


def list_files(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """List the Python and Markdown files at or below the paths."""
    found = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.suffix in (".py", ".md") and file.name not in ("prose.py", "test_prose.py")
    ]
    return [file for file in found if ".venv" not in file.parts]


def main() -> None:
    """Print every banned word with its file, line and replacement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    for file in list_files(parser.parse_args().paths):
        for number, word, line in find_banned(file):
            advice = next(new for old, new in BANNED.items() if re.fullmatch(old, word, re.I))
            print(f"{file}:{number}: {word!r} -> {advice}: {line}")


if __name__ == "__main__":
    main()
