"""Pages for people: quarantine, and the login to them.

A person logs in with a bearer token of the platform, once; the browser keeps it in a cookie that
scripts cannot read and other sites cannot send. The API does not take the cookie, so no page of another
site can do anything with it. Pages are made on the server, load nothing, and run no script.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform.registry.access import TokenRing
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.serving.quarantine import Filters
from dc_platform.serving.quarantine_routes import quarantine_of
from dc_platform.serving.refusals import KNOWN, refusal, sentence
from dc_platform.serving.turns import Turns

router = APIRouter()

COOKIE = "dcp_token"
_COOKIE_SECONDS = 12 * 3600
_FORM_BYTES = 4096
_SHOWN_GROUPS = 200
_EXAMPLES = 20
_templates = Environment(
    loader=PackageLoader("dc_platform.serving"), autoescape=True, undefined=StrictUndefined
)


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _number(value: int) -> str:
    return f"{value:,}"


_templates.filters.update(time=_time, number=_number)


@router.get("/quarantine")
async def quarantine_page(request: Request) -> Response:
    """Counts by reason, source and day, and the newest examples."""
    return await _in_turn(request, partial(_summary_page, request))


@router.get("/quarantine/{quarantine_id}")
async def quarantine_row_page(quarantine_id: str, request: Request) -> Response:
    """One row: what was wrong, its bytes, its replays."""
    return await _in_turn(request, partial(_row_page, request, quarantine_id))


def _summary_page(request: Request, reader: TokenOwner) -> Response:
    try:
        filters = Filters.model_validate(
            {"examples": _EXAMPLES, **{k: v for k, v in request.query_params.items() if v}}
        )
    except ValidationError as error:
        errors = [{**e, "loc": ("query", *e["loc"])} for e in error.errors()]
        return _page("error.html", 422, message=sentence(errors))
    found = quarantine_of(request, reader.tenant_id).summary(filters)
    sources = request.app.state.sources.list()
    names = {s.source_id: s.name for s in sources if s.tenant_id == reader.tenant_id}
    chosen = {k: v for k, v in request.query_params.items() if v and k != "examples"}

    def link(**changes: str | None) -> str:
        kept = {k: v for k, v in {**chosen, **changes}.items() if v}
        return f"/quarantine?{urlencode(kept)}" if kept else "/quarantine"

    return _page(
        "quarantine.html",
        found=found,
        chosen=chosen,
        link=link,
        names=names,
        remedies={reason.value: REMEDIES[reason] for reason in Reason},
        reasons=_summed(found["groups"], "reason"),
        sources=_summed(found["groups"], "sourceId"),
        days=sorted(_summed(found["groups"], "day"), key=lambda row: str(row["name"]))[-31:],
    )


def _row_page(request: Request, quarantine_id: str, reader: TokenOwner) -> Response:
    found = quarantine_of(request, reader.tenant_id).one(quarantine_id)
    if found is None:
        return _page("error.html", 404, message=f"There is no row {quarantine_id} in quarantine.")
    return _page("quarantine_row.html", row=found)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Check the token of the form, and keep it in the cookie."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "The form has to be this site's own.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(413, "The form is too large.")
    form = parse_qs(body.decode("utf-8", "replace"))
    token = form.get("token", [""])[0].strip()
    target = _own_path(form.get("next", [""])[0])
    if _owner(request, token) is None:
        return _page("login.html", 401, target=target, wrong=True)
    answer = RedirectResponse(target, 303)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=_COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def post_logout() -> Response:
    """Forget the token."""
    answer = RedirectResponse("/quarantine", 303)
    answer.delete_cookie(COOKIE)
    return answer


async def _in_turn(request: Request, page: Callable[[TokenOwner], Response]) -> Response:
    """The page for whose token the cookie has, when it is its tenant's turn; else the login."""
    turns: Turns = request.app.state.turns
    try:
        reader = await anyio.to_thread.run_sync(_owner, request, request.cookies.get(COOKIE, ""))
        if reader is None:
            return _login(request)
        async with turns.taken(reader.tenant_id):
            return await anyio.to_thread.run_sync(page, reader)
    except KNOWN as error:
        return _refused(refusal(error, bad=400))
    except HTTPException as error:
        return _refused(error)


def _owner(request: Request, token: str) -> TokenOwner | None:
    """Whose token it is, when it may query."""
    ring: TokenRing = request.app.state.tokens
    owner = ring.owner_of(token) if token else None
    return owner if owner is not None and owner.may(Scope.QUERY) else None


def _own_path(target: str) -> str:
    """A path of a page of ours; nothing else is gone to after the login."""
    path = target.split("?")[0]
    return target if path == "/quarantine" or path.startswith("/quarantine/") else "/quarantine"


def _login(request: Request) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return _page("login.html", 401, target=_own_path(target), wrong=False)


def _refused(error: HTTPException) -> Response:
    return _page("error.html", error.status_code, message=str(error.detail))


def _page(template: str, status: int = 200, **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    content = _templates.get_template(template).render(nonce=nonce, **values)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(content, status, headers)


def _summed(groups: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The groups by one of their names, the largest first."""
    figures = ("count", "open", "replayed", "failing")
    sums: dict[Any, dict[str, Any]] = {}
    for group in groups:
        row = sums.setdefault(group[name], {"name": group[name], **dict.fromkeys(figures, 0)})
        for figure in figures:
            row[figure] += group[figure]
    return sorted(sums.values(), key=lambda row: -row["count"])[:_SHOWN_GROUPS]
