"""The dashboard's files: plain HTML, CSS and ES modules, served as they lie in `dashboard/`.

The page runs nothing but these files and talks to nobody but this server. It holds for itself the
token that the person pasted, and sends it as any other client does: a cookie would go out with the
requests of other pages, too, and to every port of this host.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_FILES = Path(__file__).with_name("dashboard")
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A new version shows at the next load; the ETag makes that cheap.
    "Cache-Control": "no-cache",
}


class _Page(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(_HEADERS)
        return answer


def install(app: FastAPI) -> None:
    """Serve the page at /dashboard/; / leads there."""

    @app.get("/", include_in_schema=False)
    def root() -> Response:
        return RedirectResponse("dashboard/", headers=_HEADERS)

    app.mount("/dashboard", _Page(directory=_FILES, html=True))
