"""Download of exports from the Hugging Face Hub, for paths such as hf://owner/name."""

from etils import epath

from oneflow_jax.errors import UserError

SCHEME = "hf://"

FILES = ("*.json", "*.md", "*.model", "*.safetensors", "codec/*.json", "codec/*.safetensors")
"""Patterns of the files of an export; other files of a repository are not downloaded."""


def download(path: str) -> epath.Path:
    """Download an export, and return the local folder, which the Hub's cache keeps.

    Args:
        path: `hf://owner/name`, or `hf://owner/name@revision`, where the revision is a branch, a
            tag or a commit.

    Raises:
        UserError: the path has another form, the package huggingface_hub is missing, or the Hub
            cannot be reached or has no such repository.
    """
    name, _, revision = path.removeprefix(SCHEME).partition("@")
    if len(name.split("/")) != 2 or not all(name.split("/")):
        raise UserError(
            f"workdir={path}: must have the form hf://owner/name or hf://owner/name@revision."
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"workdir={path}: needs the package huggingface_hub. Run: pip install huggingface_hub"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=list(FILES)
        )
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise UserError(
            f"workdir={path}: the export cannot be downloaded ({error}). Check the name and the "
            "network, or give the folder of a copy."
        ) from error
    return epath.Path(folder)
