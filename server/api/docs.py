"""The API's description and its page, served from files that are installed: no CDN, works offline and under a
strict policy.
"""

from typing import Any

from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from server.embedded import package_path
from server.openapi import describe

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>AI Secretary API</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
# Swagger UI writes style attributes and has its pictures in its style sheet; scripts come from here alone.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_START = 'SwaggerUIBundle({url: "/docs/openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'


class DocsController(Controller):
    path = "/docs"
    include_in_schema = False
    opt = {"public": True}  # noqa: RUF012  # Litestar reads this plain class attribute

    @get(media_type=MediaType.HTML)
    async def page(self) -> Response[str]:
        """Swagger UI."""
        return Response(_PAGE, media_type=MediaType.HTML, headers={"content-security-policy": _POLICY})

    @get("/openapi.json")
    async def schema(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """The API as OpenAPI 3.1."""
        return describe(request.app)

    @get("/start.js", media_type="text/javascript")
    async def start(self) -> str:
        return _START

    @get("/{name:str}")
    async def asset(self, name: FromPath[str]) -> Response[bytes]:
        """Swagger UI's own files, out of the package that ships them."""
        if name not in _ASSETS:
            raise NotFoundException
        folder = (
            package_path("drf_spectacular_sidecar") / "static" / "drf_spectacular_sidecar" / "swagger-ui-dist"
        )
        headers = {"cache-control": "public, max-age=86400"}
        return Response((folder / name).read_bytes(), media_type=_ASSETS[name], headers=headers)
