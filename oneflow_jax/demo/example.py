"""Requests that the server makes when it starts: the documents that the page shows at first.

A second request, whose documents are not shown, compiles the programs with guidance. So no slider
of the page has to wait for a program, as long as documents are not longer than the example.
"""

import threading
from collections.abc import Iterator

from oneflow_jax.demo import descriptions
from oneflow_jax.serving import events, service, wire

SAMPLES = 4
"""Number of documents that the page generates for a prompt."""

SEED = 0

GUIDANCE = 2.0
"""Scale of the second request; all scales other than 1 have the same programs."""


class Example:
    """A request that is made once; every page that opens gets its events.

    Attributes:
        model: name of the model.
        prompt: prompt of the documents, the first one of the model's run.
    """

    def __init__(self, served: service.Service) -> None:
        """Queue both requests."""
        self.model = served.default_model
        model = served.get_model(None)
        self.prompt = descriptions.describe(self.model, model)["prompts"][0]
        self._events: list[events.Event] = []
        self._changed = threading.Condition()
        call = model.prepare_generate(self.prompt, samples=SAMPLES, seed=SEED)
        served.submit(None, call, self._listen, wants_states=True)
        guided = model.prepare_generate(
            self.prompt, samples=SAMPLES, steps=1, image_guidance_scale=GUIDANCE
        )
        served.submit(None, guided, lambda event: None, wants_states=True)

    def stream(self) -> Iterator[str]:
        """Yield all events as server-sent events: first those of the past, then each new one."""
        sent = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda sent=sent: len(self._events) > sent, wire.KEEP_ALIVE_S
                )
                new = self._events[sent:]
            sent += len(new)
            if not new:
                yield wire.KEEP_ALIVE
            for event in new:
                yield wire.format_event(event, ())
                if isinstance(event, events.Done | events.Failed):
                    return

    def _listen(self, event: events.Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
