"""Which view a request is answered from: the newest, or one as of an older version."""

from __future__ import annotations

from fastapi import HTTPException, Request

from dc_platform.serving.engine import PastViews
from dc_platform.serving.past import Past, as_of
from dc_platform.serving.tail import Tail
from dc_platform.serving.view import View


def current_view(request: Request) -> View:
    """The newest view of the union; 503 while there is none."""
    tail: Tail = request.app.state.tail
    if tail.view is None:
        raise HTTPException(503, "Serving is starting.", headers={"Retry-After": "1"})
    return tail.view


def view_as_of(request: Request, asked: int | str | None, tenant_id: str) -> View:
    """The view of a tenant as of a version or a time; None: the newest."""
    if asked is None:
        return current_view(request)
    return past_views(request, tenant_id)(as_of(asked))


def past_views(request: Request, tenant_id: str) -> PastViews:
    """The views of a tenant as of older versions."""
    past: Past = request.app.state.past
    now = current_view(request)
    return lambda at: past.view(at, now, tenant_id=tenant_id)
