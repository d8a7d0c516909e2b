"""Counts the files in the user's folder that were not used for any document."""

import fnmatch
import posixpath

from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.stats import DatasetStats

NO_EXTENSION = "without extension"
EXCLUDED = "excluded by source.glob"


def count_unused(manifest: Manifest, stats: DatasetStats) -> None:
    """Add the number of unused files of each kind to `stats`, and clear `stats.opened`.

    The kind is the extension of the file, the reason why it cannot be read, or `EXCLUDED` if the
    name does not match `source.glob`. Nothing is counted if the source is a single file or a TFDS
    data set.
    """
    settings = manifest.settings
    used = {name for unit in manifest.units for name in unit.files} | stats.opened.keys()
    stats.opened.clear()
    if settings.format == "tfds" or not settings.location.is_dir():
        return
    for name, obstacle in sorted(settings.folder.walk()):
        if name in used and not obstacle:
            continue
        ending = posixpath.splitext(name)[1].lower()
        if obstacle:
            stats.add_unused_file(obstacle, name)
        elif not fnmatch.fnmatch(name, settings.glob):
            stats.add_unused_file(EXCLUDED, name)
        else:
            stats.add_unused_file(ending or NO_EXTENSION, name)
