"""The models of a server, by name; each is loaded when it is first used."""

import os
import threading
from collections.abc import Mapping

from oneflow_jax.api.model import Model, load
from oneflow_jax.errors import UserError, check_one_of
from oneflow_jax.runtime import storage, workdir


class ModelRegistry:
    """Models by name.

    Attributes:
        names: names of all models; the first one is the default.
    """

    def __init__(self, models: Mapping[str, str | os.PathLike[str] | Model]) -> None:
        """Register the models, and load none.

        Args:
            models: models by name; each is the folder of a run, or a loaded model.

        Raises:
            UserError: a folder has no run with a checkpoint.
        """
        self.names = tuple(models)
        self._loaded = {name: x for name, x in models.items() if isinstance(x, Model)}
        self._folders = {name: x for name, x in models.items() if name not in self._loaded}
        self._lock = threading.Lock()
        for folder in self._folders.values():
            where = storage.resolve_path(folder, "workdir")
            config = workdir.load_config(where, field="workdir")
            if "paradigm" not in config or not workdir.has_checkpoints(where):
                raise UserError(
                    f"workdir={where} has no trained document model. Give the folder of a run that "
                    "has saved a checkpoint."
                )

    def __getitem__(self, name: str) -> Model:
        check_one_of("model", name, self.names)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(self._folders[name], {"platform": "any"})
            return self._loaded[name]

    def get_loaded(self, name: str) -> Model | None:
        """Return the model of this name; None if it is not loaded yet."""
        return self._loaded.get(name)

    def load_all(self) -> None:
        """Load all models that are not loaded yet.

        Raises:
            UserError: see `api.model.load`.
        """
        for name in self.names:
            self[name]
