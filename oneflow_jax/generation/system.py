"""The parts of a run that generation needs."""

from typing import Protocol

import jax

from oneflow_jax.data import layout as layouts
from oneflow_jax.data.known_layouts import KnownLayouts
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm


class GenerativeSystem(Protocol):
    """The parts of a run that generation needs, without configuration, optimizer and data."""

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh of devices."""

    @property
    def layout(self) -> layouts.Layout:
        """The layout, which converts documents to slots, with its vocabulary and codec."""

    @property
    def known_layouts(self) -> KnownLayouts | None:
        """The layouts of training documents; None if they are not known or not needed."""

    @property
    def model(self) -> Model:
        """The network, without parameters."""

    @property
    def paradigm(self) -> Paradigm:
        """The paradigm, which fills canvases with its sampler."""
