"""HTTP to `ingest` and back (design 4.1)."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from dc_platform.contracts import identity
from dc_platform.contracts.envelope import Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.requests import events_of
from dc_platform.errors import BrokerUnavailableError, StoreUnavailableError
from dc_platform.gateway.auth import AuthError, KeyRing
from dc_platform.gateway.body import decompress, read_body
from dc_platform.gateway.ingest import Ingest, Outcome
from dc_platform.registry.sources import KeyOwner
from dc_platform.settings import Settings

router = APIRouter()
_encode = msgspec.json.Encoder().encode

_STATUS = {Reason.BODY_TOO_LARGE: 413}
RETRY_AFTER_SECONDS = 1


class Doors:
    """What the routes need; kept in `app.state.doors`."""

    def __init__(self, settings: Settings, keys: KeyRing, ingest: Ingest) -> None:
        self.settings = settings
        self.keys = keys
        self.ingest = ingest


@router.post("/api/v1/events")
async def post_events(request: Request) -> Response:
    """Send events: `{"events": [{"timestamp", "eventType", "payload"}, …]}`.

    One event, a JSON array and NDJSON are understood too, plain or gzip. 200 says that Kafka has
    the accepted events and the bytes of the rejected ones; any other answer is safe to retry.
    """
    return await _take(request, batch=False)


@router.post("/api/v1/events/batch")
async def post_batch(request: Request) -> Response:
    """Send a batch: JSON, a JSON array or NDJSON, plain or gzip; answers with a `batchId`."""
    return await _take(request, batch=True)


async def _take(request: Request, *, batch: bool) -> Response:
    doors: Doors = request.app.state.doors
    try:
        owner = await doors.keys.owner_of(request.headers)
    except AuthError as error:
        return _answer(error.status, 0, 0, [_error(error.code, str(error))])
    except StoreUnavailableError as error:
        return _unavailable(f"The key is not known yet, and {error}")
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 256:
        message = "Idempotency-Key must have 1 to 256 characters."
        return _answer(400, 0, 0, [_error("bad_idempotency_key", message)])
    batch_id = _batch_id(owner, key) if batch else None
    try:
        return await _ingest(request, doors, owner, key, batch_id)
    except BrokerUnavailableError as error:
        return _unavailable(str(error))
    except ClientDisconnect:
        # Nobody reads this answer.
        return _answer(400, 0, 0, [_error("disconnected", "The body did not arrive.")])


async def _ingest(
    request: Request, doors: Doors, owner: KeyOwner, key: str | None, batch_id: str | None
) -> Response:
    settings = doors.settings
    body = await read_body(request.stream(), limit=settings.max_body_bytes)
    found: list[bytes] | bytes | Rejected
    if body.too_large:
        found = Rejected(
            Reason.BODY_TOO_LARGE,
            f"body has {body.length} bytes, the limit is {settings.max_body_bytes}",
        )
    else:
        encoding = request.headers.get("content-encoding", "").strip().lower()
        found = decompress(body.raw, encoding, limit=settings.max_decompressed_bytes)
    if isinstance(found, bytes):
        found = events_of(found, request.headers.get("content-type", ""))
    if isinstance(found, Rejected):
        outcome = await doors.ingest.reject_body(
            owner, found, body.raw, body.length, body.sha256, batch_id=batch_id
        )
        close = {"Connection": "close"} if body.too_large else {}
        return _outcome(_STATUS.get(found.reason, 400), outcome, batch_id, close)
    outcome = await doors.ingest.events(
        owner, found, request_sha256=body.sha256, idempotency_key=key, batch_id=batch_id
    )
    return _outcome(200, outcome, batch_id)


def _batch_id(owner: KeyOwner, key: str | None) -> str:
    """The same for a request that is sent again with its Idempotency-Key."""
    if key is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(identity.source_namespace(owner.source_id), "batch:" + key))


def _outcome(
    status: int, outcome: Outcome, batch_id: str | None, headers: dict[str, str] | None = None
) -> Response:
    more: dict[str, Any] = {}
    if batch_id is not None:
        refused = outcome.accepted == 0 and len(outcome.rejects) > 0
        more = {"batchId": batch_id, "status": "rejected" if refused else "accepted"}
    return _answer(
        status, outcome.accepted, len(outcome.rejects), outcome.errors, more=more, headers=headers
    )


def _unavailable(why: str) -> Response:
    message = f"{why}. Send the same request again after Retry-After seconds."
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _answer(503, 0, 0, [_error("unavailable", message)], headers=retry)


def _error(code: str, message: str) -> dict[str, object]:
    return {"index": None, "code": code, "message": message}


def _answer(
    status: int,
    accepted: int,
    rejected: int,
    errors: list[dict[str, object]],
    *,
    more: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    content = {**(more or {}), "accepted": accepted, "rejected": rejected, "errors": errors}
    return Response(
        _encode(content), status_code=status, headers=headers, media_type="application/json"
    )
