"""HTTP of quarantine: JSON for tools. The page for people is in `pages.py`."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response

from dc_platform.serving.quarantine import Filters, Quarantine
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.routes import InTurn, Reader
from dc_platform.serving.views import current_view

router = APIRouter(prefix="/api/v1/quarantine")


def quarantine_of(request: Request, tenant_id: str) -> Quarantine:
    """Quarantine of a tenant, now."""
    return Quarantine(request.app.state.engine, current_view(request), tenant_id)


@router.get("", dependencies=[InTurn])
def get_quarantine(
    filters: Annotated[Filters, Query()], request: Request, reader: Reader
) -> dict[str, Any]:
    """How many rows there are by reason, source and day, what became of them, and some examples."""
    try:
        return quarantine_of(request, reader.tenant_id).summary(filters)
    except KNOWN as error:
        raise refusal(error, bad=400) from error


@router.get("/{quarantine_id}", response_model=None, dependencies=[InTurn])
def get_one(
    quarantine_id: str,
    request: Request,
    reader: Reader,
    format: Literal["json", "raw"] = "json",  # noqa: A002
) -> dict[str, Any] | Response:
    """One row with its bytes, and its replays; `format=raw`: the bytes alone."""
    try:
        found = quarantine_of(request, reader.tenant_id).one(quarantine_id)
    except KNOWN as error:
        raise refusal(error, bad=400) from error
    if found is None:
        raise HTTPException(404, f"There is no row {quarantine_id} in quarantine.")
    if format == "json":
        return found
    return Response(
        base64.b64decode(found["base64"]),
        media_type="application/octet-stream",
        # Bytes of strangers: never shown by a browser as what they say they are.
        headers={
            "Content-Disposition": 'attachment; filename="quarantined.bin"',
            "X-Content-Type-Options": "nosniff",
        },
    )
