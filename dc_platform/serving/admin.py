"""Deletions and dry runs over HTTP, where the lake is known. Needs a token with scope admin.

The policies themselves are set at the gateway. A deletion that is asked for here is carried out by
Dagster (`ops/retention`), which finds it within half a minute.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from dc_platform.errors import ConfigurationError
from dc_platform.registry.access import need_scope
from dc_platform.registry.database import now_ms
from dc_platform.registry.retention import Deletion, Kind, Policy, Retention
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.retention.conditions import of_person
from dc_platform.retention.deletion import recorded
from dc_platform.retention.run import RetentionRun
from dc_platform.serving.routes import InTurn

router = APIRouter(prefix="/api/v1/admin")
Admin = Annotated[TokenOwner, Depends(need_scope(Scope.ADMIN))]


class TriedPolicy(BaseModel):
    """Body of a dry run: a policy that is not set yet."""

    model_config = ConfigDict(extra="forbid")

    dataType: str = Field(min_length=1, max_length=256)  # noqa: N815
    retentionDays: int = Field(ge=1)  # noqa: N815
    archiveAfterDays: int = Field(ge=0)  # noqa: N815


class Person(BaseModel):
    """Body of a deletion by person."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(min_length=1, max_length=256)
    value: str = Field(min_length=1, max_length=1024)
    atOnce: bool = False  # noqa: N815


@router.post("/retention-policy/dry-run", dependencies=[InTurn])
def dry_run(request: Request, admin: Admin, body: TriedPolicy | None = None) -> dict[str, Any]:
    """What the next run would delete and move, by table and tier; with a body as if that policy had
    been set. Nothing is changed.
    """
    tried = None
    if body is not None:
        days = body.retentionDays, body.archiveAfterDays
        tried = Policy("", admin.tenant_id, body.dataType, *days, now_ms())
    run = _run(request)
    return {
        "planned": [_planned(asdict(p)) for p in run.plan(tried, admin.tenant_id)],
        "now": run.standing(),
    }


@router.post("/deletions", status_code=202)
def delete_person(body: Person, request: Request, admin: Admin) -> dict[str, str]:
    """Ask for the deletion of all events of a person."""
    try:
        of_person(admin.tenant_id, body.field, body.value)
    except ConfigurationError as error:
        raise HTTPException(422, str(error)) from None
    asked = _retention(request).request(
        Kind.PERSON,
        admin.tenant_id,
        {"field": body.field, "value": body.value},
        who="api",
        at_once=body.atOnce,
    )
    return {"deletionId": asked.deletion_id}


@router.get("/deletions", dependencies=[InTurn])
def list_deletions(request: Request, admin: Admin) -> dict[str, Any]:
    """Those of the tenant that are pending, and those that are done."""
    whose = admin.tenant_id
    pending = [_shown(d) for d in _retention(request).pending() if d.tenant_id == whose]
    done = [r["deletion_id"] for r in recorded(_run(request).lake) if r["tenant_id"] == whose]
    return {"pending": pending, "finished": list(dict.fromkeys(done))}


@router.get("/deletions/{deletion_id}", dependencies=[InTurn])
def get_deletion(deletion_id: str, request: Request, admin: Admin) -> dict[str, Any]:
    """How far a deletion has come; what it took and its proof when it is finished."""
    found = _retention(request).deletion(deletion_id)
    if found is None or found.tenant_id != admin.tenant_id:
        raise HTTPException(404, f"There is no deletion {deletion_id}; GET …/deletions lists them.")
    rows = recorded(_run(request).lake, deletion_id)
    return {
        **_shown(found),
        "tables": [
            {"table": row["table_name"]} | {n: row[n] for n in ("rows", "files", "bytes")}
            for row in rows
        ],
        "proof": json.loads(rows[0]["proof"]) if rows else None,
    }


def _retention(request: Request) -> Retention:
    retention: Retention = request.app.state.retention
    return retention


def _run(request: Request) -> RetentionRun:
    run: RetentionRun = request.app.state.retention_run
    return run


def _planned(row: dict[str, Any]) -> dict[str, Any]:
    before, after = row.pop("dollars_before"), row.pop("dollars_after")
    return {**row, "dollarsBefore": before, "dollarsAfter": after}


def _shown(deletion: Deletion) -> dict[str, Any]:
    state = (
        "finished" if deletion.finished_ms else "deleted" if deletion.deleted_ms else "requested"
    )
    return {
        "deletionId": deletion.deletion_id,
        "kind": deletion.kind.value,
        "state": state,
        "requestedAt": deletion.requested_ms,
        "erased": deletion.erased,
    }
