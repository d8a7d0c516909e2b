"""Downloads the npm packages of the drawing styles (35 MB) with the npm client.

    python -m oneflow_jax.data.fetch_emoji_styles data/emoji_styles

The module `style_packages` fixes the versions. Packages that are already in the folder are not
fetched again. The file ATTRIBUTION.md in the folder lists the authors and licenses.
"""

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

from oneflow_jax import errors
from oneflow_jax.data import style_packages


def list_packages() -> dict[str, str]:
    """Return a dict from the file name of each package to the package's name and version."""
    keywords = f"{style_packages.KEYWORDS_PACKAGE}-{style_packages.KEYWORDS_VERSION}.tgz"
    return {style.file_name: style.package for style in style_packages.STYLES} | {
        keywords: f"{style_packages.KEYWORDS_PACKAGE}@{style_packages.KEYWORDS_VERSION}"
    }


def fetch(folder: pathlib.Path, wanted: dict[str, str]) -> None:
    """Fetch the packages that are not in the folder yet.

    Args:
        folder: folder of the packages; created if needed.
        wanted: the arguments of `npm pack`, by the name of the file that npm writes for each.

    Raises:
        UserError: npm is not installed, or a package cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name: spec for name, spec in wanted.items() if not (folder / name).is_file()}
    npm = shutil.which("npm")
    if missing and npm is None:
        raise errors.UserError("npm is not installed. Install Node.js, which includes npm.")
    for number, (name, spec) in enumerate(missing.items(), 1):
        print(f"{number} of {len(missing)}: {spec}", flush=True)
        _pack(str(npm), spec, name, folder)
    (folder / "ATTRIBUTION.md").write_text(_format_attribution())


def main(arguments: Sequence[str]) -> None:
    """Fetch all packages into the folder named by the only command line argument."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    try:
        fetch(pathlib.Path(arguments[0]).expanduser(), list_packages())
    except errors.UserError as error:
        raise SystemExit(f"error: {error}") from None


def _pack(npm: str, spec: str, name: str, folder: pathlib.Path) -> None:
    """Fetch a package with npm. The file gets its final name only when it is complete."""
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    done = subprocess.run(
        [npm, "pack", "--silent", spec], cwd=draft, capture_output=True, text=True, check=False
    )
    if done.returncode or not (draft / name).is_file():
        raise errors.UserError(
            f"npm pack {spec} failed: {done.stderr.strip() or 'it wrote no ' + name}. Check the "
            "network and try again. Packages that were already fetched are not fetched again."
        )
    (draft / name).replace(folder / name)
    draft.rmdir()


def _format_attribution() -> str:
    rows = [
        f"| {style.name} | {style.author} | {style.license} | https://{style.homepage} | "
        f"{style.package} |"
        for style in style_packages.STYLES
    ]
    return "\n".join(
        [
            "# Emoji in ten styles",
            "",
            "| style | author | license | source | npm package |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Keywords: Unicode CLDR ({style_packages.KEYWORDS_LICENSE}), npm package "
            f"{style_packages.KEYWORDS_PACKAGE}@{style_packages.KEYWORDS_VERSION}.",
            "",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
