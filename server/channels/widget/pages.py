"""The widget's script and the demo page."""

import gzip
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from server.demo.business import TENANT_SLUG
from server.deps import Parts
from storage.errors import NotFound
from storage.repositories import directory

STATIC = Path(__file__).parent / "static"
_TYPES = {"widget.js": "text/javascript", "demo.css": "text/css"}  # Litestar adds the charset


class WidgetPages(Controller):
    opt = {"public": True}  # noqa: RUF012  # Litestar reads this plain class attribute
    include_in_schema = False

    @get("/widget/v1/{name:str}")
    async def asset(self, name: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        """A static file, compressed where the browser takes it. Any site may load it: that is what it is for."""
        if name not in _TYPES:
            raise NotFoundException
        headers = {
            "access-control-allow-origin": "*",
            "cache-control": "public, max-age=300",
            "vary": "accept-encoding",
        }
        content, packed = _asset(name)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=_TYPES[name], headers={**headers, "content-encoding": "gzip"})
        return Response(content, media_type=_TYPES[name], headers=headers)

    @get(["/demo", "/"], media_type=MediaType.HTML)
    async def demo(self, request: Request[Any, Any, Any]) -> Response[str]:
        """The demo business's page with the widget on it."""
        parts: Parts = request.app.state.parts
        async with parts.database.platform_session(
            "demo page: which key has the demo tenant's widget"
        ) as session:
            key = await directory.first_channel_key(session, TENANT_SLUG, "widget")
        if key is None:
            raise NotFound("There is no demo tenant here. `python -m server seed` makes one.")
        page = (STATIC / "demo.html").read_text(encoding="utf-8")
        base = parts.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
        filled = page.replace("{{ widget_key }}", escape(key)).replace("{{ base_url }}", escape(base))
        policy = (
            "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
            "frame-ancestors 'none'"
        )
        return Response(filled, media_type=MediaType.HTML, headers={"content-security-policy": policy})


@lru_cache
def _asset(name: str) -> tuple[bytes, bytes]:
    content = (STATIC / name).read_bytes()
    return content, gzip.compress(content, 9, mtime=0)
