"""A service without a model, for the tests of the page: each request has a script of events."""

import dataclasses
import threading

import ml_collections

from oneflow_jax.api import state
from oneflow_jax.api.document import Document, EditResult
from oneflow_jax.api.info import ModelInfo
from oneflow_jax.data import prompt as prompts
from oneflow_jax.data.edits import Edit
from oneflow_jax.errors import UserError, check_one_of
from oneflow_jax.serving import events
from oneflow_jax.serving.counters import Counters
from oneflow_jax.serving.limits import Limits
from tests.viewer import examples

NAMES = ("tiger", "fox", "red apple")
WARNING = (
    "the model probably does not know the word 'redd', which its tokenizer spells in 2 tokens. The "
    "nearest known word to 'redd' is 'red'."
)


@dataclasses.dataclass
class FakeCall:
    documents: list
    options: dict
    num_documents: int
    is_edit: bool = False


class FakeModel:
    """A model that "generates" the examples of the viewer's tests."""

    def __init__(self, name, can_edit=True):
        self.name = name
        self.can_edit = can_edit
        self.calls = []
        self.config = ml_collections.ConfigDict(
            {
                "source": {"name": "emoji"},
                "sampling": {
                    "prompts": ("<text> <image>", "first a fox <image>, then <text> <image>"),
                    "steps": 6,
                    "image_guidance_scale": 1.0,
                    "edit_start": 0.8,
                },
            }
        )

    def info(self):
        return ModelInfo(
            name=self.name,
            paradigm="oneflow",
            parameters=1_350_000,
            tasks=("joint",),
            pixels=8,
            image_slots=4,
            gap_tokens=6,
            slots=96,
            chooses_parts=False,
            can_edit=self.can_edit,
            words=("a", "red"),
            names=NAMES,
            aspect_ratios=("1:1", "3:2"),
        )

    def list_warnings(self, prompt):
        words = " ".join(part for part in prompt.parts if isinstance(part, str))
        return [f"text {words!r}: {WARNING}"] if "redd" in words else []

    def prepare_generate(self, prompt, *, samples=1, **options):
        if isinstance(prompt, str):
            prompt = Document(prompts.split(prompt))
        if "long" in str(prompt):
            raise UserError("The document has 900 slots, more than data.sequence_length=96.")
        self.calls.append((prompt, options))
        return FakeCall(
            [examples.make_masked_view(), examples.make_insertion_view()], options, samples
        )

    def prepare_edit(self, document, *, start=None, **options):
        self.calls.append((document, {"start": start, **options}))
        return FakeCall([examples.make_edit_view()], options, 1, is_edit=True)


class FakeModels(dict):
    """The interface of `serving.models.ModelRegistry`."""

    @property
    def names(self):
        return tuple(self)


class FakeService:
    """The interface of `serving.service.Service`.

    Attributes:
        gate: an event without which every request stops after its first state.
    """

    def __init__(self, *names):
        self.models = FakeModels(
            {name: FakeModel(name, can_edit=name != "plain") for name in names}
        )
        self.limits, self.counters = Limits(), Counters()
        self.default_model = names[0]
        self.is_alive, self.num_waiting = True, 0
        self.gate = threading.Event()
        self.gate.set()
        self.cancelled = []

    def get_model(self, name):
        check_one_of("model", name or self.default_model, self.models)
        return self.models[name or self.default_model]

    def submit(self, model, call, listener, *, wants_states=False):
        thread = threading.Thread(target=self._play, args=(call, listener), daemon=True)
        thread.start()
        return call

    def cancel(self, job):
        self.cancelled.append(job)

    def close(self):
        self.gate.set()

    def _play(self, call, listener):
        listener(events.Queued(2))
        listener(events.Queued(0))
        listener(events.Compiling())
        views = [call.documents[n % len(call.documents)] for n in range(call.num_documents)]
        steps = max(len(view.frames) for view in views) - 1
        for step in range(steps + 1):
            frames = [view.frames[min(step, len(view.frames) - 1)] for view in views]
            t = step / steps
            frames = [dataclasses.replace(frame, time=t) for frame in frames]
            listener(events.State(step, steps, [state.from_frame(frame) for frame in frames]))
            self.gate.wait()
        if call.options.get("seed") == 13:
            listener(events.Failed("The batch failed.", is_bug=True))
            return
        documents = [state.from_frame(view.frames[-1]).document for view in views]
        if call.is_edit:
            edits = (Edit(1, "cat", "cow"), Edit(2, "too", None), Edit(2, None, "here"))
            documents = [EditResult(document.parts, edits=edits) for document in documents]
        listener(events.Done(documents, steps, 0.25))
