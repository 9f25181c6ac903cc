"""The one page that mails link to: it verifies an address, sets a password, accepts an invitation. The token stands behind ``#``."""

from pathlib import Path

from litestar import Controller, MediaType, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

STATIC = Path(__file__).parent / "static"
_TYPES = {"account.js": "text/javascript", "account.css": "text/css"}  # Litestar adds the charset
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class AccountPages(Controller):
    opt = {"public": True}  # noqa: RUF012  # Litestar reads this plain class attribute
    include_in_schema = False

    @get("/account", media_type=MediaType.HTML)
    async def page(self) -> Response[str]:
        """What to do is in the address's fragment, which browsers send to nobody."""
        return Response(
            (STATIC / "account.html").read_text(encoding="utf-8"),
            media_type=MediaType.HTML,
            headers={"content-security-policy": _POLICY, "cache-control": "no-store"},
        )

    @get("/account/{name:str}")
    async def asset(self, name: FromPath[str]) -> Response[bytes]:
        """Script and style of the page."""
        if name not in _TYPES:
            raise NotFoundException
        return Response((STATIC / name).read_bytes(), media_type=_TYPES[name])
