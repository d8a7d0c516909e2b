"""The HTTP application of the demo: its page, on top of the API of `oneflow serve`."""

from typing import Any

import fastapi
from fastapi import responses

from oneflow_jax.demo import saving
from oneflow_jax.demo.descriptions import describe
from oneflow_jax.demo.example import SAMPLES, SEED, Example
from oneflow_jax.serving import http, service, wire
from oneflow_jax.viewer import templates

HEADING = "Text and images at the same time"

ROUTER = fastapi.APIRouter()


def make_app(served: service.Service) -> fastapi.FastAPI:
    """Create the application, and begin to generate the example in the background."""
    app = http.make_app(served)
    app.state.example = Example(served)
    app.include_router(ROUTER)
    return app


@ROUTER.get("/")
def get_page(request: fastapi.Request) -> responses.HTMLResponse:
    """Return the page."""
    served, example = request.app.state.service, request.app.state.example
    return responses.HTMLResponse(render_page(served, example))


def render_page(served: service.Service, example: Example) -> str:
    """Render the page, with the description of the default model."""
    name = served.default_model
    described = describe(name, served.get_model(name))
    data: dict[str, Any] = {
        "stories": (),
        "sheets": (),
        "models": served.models.names,
        "descriptions": {name: described},
        "samples": SAMPLES,
        "example": {
            "prompt": example.prompt,
            "model": example.model,
            "seed": SEED,
            "steps": described["steps"],
        },
    }
    return templates.render("demo/page.html", heading=HEADING, data=data)


@ROUTER.get("/demo/model")
def get_model(name: str, request: fastapi.Request) -> dict[str, Any]:
    """Describe a model; the first request for it loads the model."""
    return describe(name, request.app.state.service.get_model(name))


@ROUTER.post("/demo/warnings")
def post_warnings(body: wire.GenerateRequest, request: fastapi.Request) -> dict[str, Any]:
    """List the letters and words of a prompt that the model does not know; generate nothing."""
    served = request.app.state.service
    prompt = body.read_prompt(served.limits)
    return {"warnings": served.get_model(body.model).list_warnings(prompt)}


@ROUTER.get("/demo/example")
def get_example(request: fastapi.Request) -> responses.StreamingResponse:
    """Stream the events of the example, like /v1/generate."""
    stream = request.app.state.example.stream()
    return responses.StreamingResponse(stream, media_type="text/event-stream")


@ROUTER.post("/demo/save")
def post_save(body: saving.SaveRequest) -> responses.Response:
    """Return a document as a file."""
    saved = saving.save(body)
    headers = {"frame-count": str(saved.num_frames)}
    return responses.Response(saved.content, media_type=saved.media_type, headers=headers)
