"""Sources over HTTP (design 4.5): create, look at, change, delete. Needs a token with scope admin."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dc_platform.registry.access import need_scope
from dc_platform.registry.database import iso_time
from dc_platform.registry.sampling import SamplingRule
from dc_platform.registry.sources import Source, Sources, SourceStatus, SourceType
from dc_platform.registry.tokens import Scope, TokenOwner

router = APIRouter(prefix="/api/v1/admin")
Admin = Annotated[TokenOwner, Depends(need_scope(Scope.ADMIN))]


def _can_be_shown(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what Python reads as JSON and no answer can hold: NaN, 1e999, half of a surrogate."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_can_be_shown)]


class NewSource(BaseModel):
    """Body of POST."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str = Field(min_length=1, max_length=256)
    type: SourceType
    metadata: JsonObject = Field(default_factory=dict)
    schema_: JsonObject | None = Field(default=None, alias="schema")
    sampling: SamplingRule | None = None


class ChangedSource(BaseModel):
    """Body of PUT: what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str | None = Field(default=None, min_length=1, max_length=256)
    type: SourceType | None = None
    metadata: JsonObject | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    sampling: SamplingRule | None = None
    status: SourceStatus | None = None


@router.post("/sources", status_code=201)
def create_source(body: NewSource, request: Request, admin: Admin) -> dict[str, Any]:
    """Create a source. The key is shown only in this answer."""
    source, key = _sources(request).create(
        body.name,
        body.type,
        tenant_id=admin.tenant_id,
        metadata=body.metadata,
        schema=body.schema_,
        by=by(admin),
        sampling=body.sampling,
    )
    return {"sourceId": source.source_id, "apiKey": key}


@router.get("/sources")
def list_sources(request: Request, admin: Admin) -> dict[str, Any]:
    """All sources of the tenant."""
    found = [s for s in _sources(request).list() if s.tenant_id == admin.tenant_id]
    return {"sources": [shown(source) for source in found]}


@router.get("/sources/{source_id}")
def get_source(source_id: str, request: Request, admin: Admin) -> dict[str, Any]:
    """One source."""
    return shown(_found(_sources(request).get(source_id), source_id, admin))


@router.put("/sources/{source_id}")
def put_source(
    source_id: str, body: ChangedSource, request: Request, admin: Admin
) -> dict[str, Any]:
    """Change a source; status INACTIVE disables its keys, ACTIVE enables also one that has failed."""
    if body.status is SourceStatus.ERROR:
        raise HTTPException(422, "status is ACTIVE or INACTIVE; ERROR is what the platform sees")
    sources = _sources(request)
    _found(sources.get(source_id), source_id, admin)
    changed = sources.change(
        source_id,
        name=body.name,
        type_=body.type,
        metadata=body.metadata,
        schema=body.schema_,
        sampling=body.sampling,
        enabled=None if body.status is None else body.status is SourceStatus.ACTIVE,
        by=by(admin),
    )
    return shown(_found(changed, source_id, admin))


@router.delete("/sources/{source_id}")
def delete_source(source_id: str, request: Request, admin: Admin) -> dict[str, bool]:
    """Delete a source: its keys die within seconds, its events and their lineage stay."""
    sources = _sources(request)
    _found(sources.get(source_id), source_id, admin)
    return {"success": sources.delete(source_id)}


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources


def _found(source: Source | None, source_id: str, admin: TokenOwner) -> Source:
    if source is None or source.tenant_id != admin.tenant_id:
        raise HTTPException(404, f"There is no source {source_id}; GET …/sources lists them.")
    return source


def shown(source: Source) -> dict[str, Any]:
    """A DataSource (design 3.1) as JSON."""
    return {
        "sourceId": source.source_id,
        "name": source.name,
        "type": source.type.value,
        "metadata": source.metadata,
        "schema": source.schemas[0] if source.schemas else None,
        "schemas": source.schemas,
        "sampling": source.sampling and source.sampling.stored(),
        "ingestionRate": round(source.ingestion_rate),
        "status": source.status.value,
        "failure": source.failure,
        "lastSeenAt": None if source.last_seen_ms is None else iso_time(source.last_seen_ms),
        "createdAt": iso_time(source.created_ms),
    }


def by(admin: TokenOwner) -> str:
    """Who it is, in a history of changes."""
    return f"token {admin.hint}"


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """422 without the input, which may hold what no answer can."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{"loc": e["loc"], "type": e["type"], "msg": e["msg"]} for e in found]
    return JSONResponse({"detail": detail}, 422)


async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """503 while the registry is away."""
    return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": "1"})
