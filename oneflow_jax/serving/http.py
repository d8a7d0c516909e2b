"""The HTTP application: `make_app` connects a `Service` to FastAPI; docs/serving.md has the API."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import fastapi
from fastapi import responses
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from oneflow_jax.api.call import Call
from oneflow_jax.errors import UserError
from oneflow_jax.serving import events, service, wire
from oneflow_jax.serving.guard import Guard


def make_app(served: service.Service, token: str | None = None) -> fastapi.FastAPI:
    """Create the application.

    Args:
        served: the service; the application closes it when the server stops.
        token: token that requests to /v1 must send; None accepts requests without one, but only
            those that name this machine as their host.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(served.close)

    app = fastapi.FastAPI(
        title="oneflow_jax", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.service = served
    app.include_router(ROUTER)
    app.add_middleware(Guard, token=token, max_body_bytes=served.limits.body_bytes)
    app.add_exception_handler(UserError, _answer_user_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(service.QueueFullError, _answer_unavailable)
    app.add_exception_handler(service.WorkerStoppedError, _answer_unavailable)
    app.add_exception_handler(Exception, _answer_bug)
    return app


ROUTER = fastapi.APIRouter(prefix="/v1")


@ROUTER.get("/health")
def get_health(request: fastapi.Request) -> dict[str, Any]:
    """Say whether requests are run, and how many wait."""
    served = request.app.state.service
    if not served.is_alive:
        raise service.WorkerStoppedError("The server does not run requests any more. Restart it.")
    return {"status": "ok", "queued": served.num_waiting}


@ROUTER.get("/metrics")
def get_metrics(request: fastapi.Request) -> responses.PlainTextResponse:
    """Return the counters in the text format of Prometheus."""
    served = request.app.state.service
    text = served.counters.format(served.num_waiting)
    return responses.PlainTextResponse(text, media_type="text/plain; version=0.0.4")


@ROUTER.get("/models")
def get_models(request: fastapi.Request) -> dict[str, Any]:
    """List the models, describe those that are loaded, and list the limits on requests."""
    served = request.app.state.service
    return {
        "models": [
            wire.write_info(name, served.models.get_loaded(name)) for name in served.models.names
        ],
        "default": served.default_model,
        "limits": vars(served.limits),
    }


@ROUTER.post("/generate")
async def post_generate(body: wire.GenerateRequest, request: fastapi.Request) -> responses.Response:
    """Fill the gaps of a prompt."""
    served = request.app.state.service

    def check() -> tuple[Call, list[str]]:
        # Check the sizes first: the work of the other checks grows with them.
        served.limits.check(body.samples, body.steps)
        model = served.get_model(body.model)
        prompt = body.read_prompt(served.limits)
        call = model.prepare_generate(prompt, samples=body.samples, **body.sampling_options())
        return call, model.list_warnings(prompt)

    return await _run(request, body, *await run_in_threadpool(check))


@ROUTER.post("/edit")
async def post_edit(body: wire.EditRequest, request: fastapi.Request) -> responses.Response:
    """Edit a finished document."""
    served = request.app.state.service

    def check() -> tuple[Call, list[str]]:
        served.limits.check(1, body.steps)
        model = served.get_model(body.model)
        document = body.read_document(served.limits)
        call = model.prepare_edit(document, start=body.start, **body.sampling_options())
        return call, model.list_warnings(document)

    return await _run(request, body, *await run_in_threadpool(check))


async def _run(
    request: fastapi.Request, body: wire.Options, call: Call, warnings: list[str]
) -> responses.Response:
    """Queue a checked call, and answer with its result or with a stream of its events."""
    served = request.app.state.service
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    def listen(event: events.Event) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            loop.call_soon_threadsafe(queue.put_nowait, event)

    job = served.submit(body.model, call, listen, wants_states=body.stream)
    if body.stream:
        stream = _stream_events(served, job, queue, warnings)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return responses.StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    try:
        last = await _wait_for_last(request, queue)
        return await run_in_threadpool(_answer_last, last, warnings)
    finally:
        served.cancel(job)


async def _wait_for_last(
    request: fastapi.Request, queue: asyncio.Queue[events.Event]
) -> events.Done | events.Failed | None:
    """Return the last event of a request, or None if the client has left."""
    left = asyncio.ensure_future(_wait_until_client_leaves(request))
    try:
        while True:
            following = asyncio.ensure_future(queue.get())
            await asyncio.wait((left, following), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                return None
            if isinstance(following.result(), events.Done | events.Failed):
                return following.result()
    finally:
        left.cancel()


async def _wait_until_client_leaves(request: fastapi.Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer_last(
    event: events.Done | events.Failed | None, warnings: list[str]
) -> responses.Response:
    match event:
        case events.Done():
            return responses.JSONResponse(wire.write_done(event, warnings))
        case events.Failed(message, is_bug):
            return _answer(500 if is_bug else 503, message)
        case None:
            return _answer(499, "The client has left.")


async def _stream_events(
    served: service.Service,
    job: service.Job,
    queue: asyncio.Queue[events.Event],
    warnings: list[str],
) -> AsyncIterator[str]:
    """Yield the events of a request as server-sent events; cancel it if the client leaves."""
    try:
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), wire.KEEP_ALIVE_S)
            except TimeoutError:
                yield wire.KEEP_ALIVE
                continue
            yield await run_in_threadpool(wire.format_event, event, warnings)
            if isinstance(event, events.Done | events.Failed):
                return
    finally:
        served.cancel(job)


def _answer(status: int, message: str, **headers: str) -> responses.JSONResponse:
    return responses.JSONResponse({"message": message}, status, headers)


def _answer_user_error(_: fastapi.Request, error: UserError) -> responses.Response:
    return _answer(400, str(error))


def _answer_validation_error(
    _: fastapi.Request, error: RequestValidationError
) -> responses.Response:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(400, f"body: not JSON ({first['ctx']['error']}). Send a JSON object.")
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    value = repr(first.get("input"))[:80]
    return _answer(400, f"{field}={value}: {first['msg']}. See docs/serving.md for the fields.")


def _answer_http_error(request: fastapi.Request, error: HTTPException) -> responses.Response:
    return _answer(error.status_code, f"{request.url.path}: {error.detail}. See docs/serving.md.")


def _answer_unavailable(_: fastapi.Request, error: Exception) -> responses.Response:
    return _answer(503, str(error), **{"retry-after": "1"})


def _answer_bug(_: fastapi.Request, error: Exception) -> responses.Response:
    logging.error("A request failed.", exc_info=error)
    return _answer(500, f"The server failed: {type(error).__name__}. Its log has the details.")
