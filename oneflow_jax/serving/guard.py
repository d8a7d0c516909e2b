"""Checks of every HTTP request before the application reads it: token, host and size."""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only programs on this machine can reach."""


class Guard:
    """ASGI middleware that refuses requests without the token, and bodies that are too large.

    Without a token, the middleware accepts only requests whose `Host` is a loopback name. So a
    page of the internet cannot read answers by giving its own name the address 127.0.0.1.
    """

    def __init__(self, app: App, *, token: str | None, max_body_bytes: int) -> None:
        """Wrap an ASGI application; see the class."""
        self.app = app
        self.token = token
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a wrong request, and pass every other one to the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refused := self._refuse(scope["path"], headers):
            await _answer(send, *refused)
            return
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise HTTPException(413, self._describe_limit())
            return message

        await self.app(scope, receive_limited, send)

    def _refuse(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return the status and message for a request that is refused; None for any other."""
        if self.token is None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition("]")[2].count(":") else host
            if name.strip("[]") not in LOOPBACK:
                return 403, f"Host={host}: not a name of this machine. Use 127.0.0.1 or localhost."
        elif path.startswith("/v1/"):
            header = headers.get(b"authorization", b"")
            if not hmac.compare_digest(header, f"Bearer {self.token}".encode()):
                return 401, "Authorization: the token is missing or wrong. Send Bearer TOKEN."
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body_bytes:
            return 413, self._describe_limit()
        return None

    def _describe_limit(self) -> str:
        return f"body: too large. Send {self.max_body_bytes} bytes at most."


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
