"""Schemas over HTTP (design 3.3): create, version, look at, check, delete. Needs scope admin."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from dc_platform.contracts.evolution import Compatibility
from dc_platform.contracts.schema import SchemaError
from dc_platform.gateway.admin import Admin, JsonObject, by
from dc_platform.registry.schema_rows import SchemaVersion
from dc_platform.registry.schemas import Schemas, history, tried
from dc_platform.registry.tokens import TokenOwner

router = APIRouter(prefix="/api/v1/admin/schemas")


class Definition(BaseModel):
    """Body of a new version; what it may hold is checked by `contracts.schema`."""

    model_config = ConfigDict(extra="forbid")

    fields: list[JsonObject] = Field(default_factory=list)
    validations: list[JsonObject] = Field(default_factory=list)

    @property
    def content(self) -> dict[str, Any]:
        """As `contracts.schema.definition_of` takes it."""
        return {"fields": self.fields, "validations": self.validations}


class NewSchema(Definition):
    """Body of POST."""

    name: str = Field(min_length=1, max_length=256)
    eventType: str | None = Field(default=None, min_length=1, max_length=256)  # noqa: N815
    compatibility: Compatibility = Compatibility.BACKWARD


class Trial(BaseModel):
    """Body of a check: a payload, a new version, or both."""

    model_config = ConfigDict(extra="forbid")

    payload: JsonObject | None = None
    fields: list[JsonObject] | None = None
    validations: list[JsonObject] | None = None


@router.post("", status_code=201)
def create_schema(body: NewSchema, request: Request, admin: Admin) -> dict[str, Any]:
    """Create a schema with version 1."""
    made = _schemas(request).create(
        body.name,
        body.content,
        tenant_id=admin.tenant_id,
        event_type=body.eventType,
        compatibility=body.compatibility,
        by=by(admin),
    )
    return made.as_json()


@router.get("")
def list_schemas(request: Request, admin: Admin) -> dict[str, Any]:
    """The newest version of every schema of the tenant."""
    return {"schemas": [s.as_json() for s in _schemas(request).all(admin.tenant_id)]}


@router.get("/{schema_id}")
def get_schema(schema_id: str, request: Request, admin: Admin) -> dict[str, Any]:
    """The newest version of a schema."""
    return _found(request, schema_id, admin).as_json()


@router.delete("/{schema_id}")
def delete_schema(schema_id: str, request: Request, admin: Admin) -> dict[str, bool]:
    """Delete a schema that judges no source; its history stays."""
    _found(request, schema_id, admin)
    return {"success": _schemas(request).delete(schema_id, tenant_id=admin.tenant_id)}


@router.post("/{schema_id}/versions", status_code=201)
def add_version(schema_id: str, body: Definition, request: Request, admin: Admin) -> dict[str, Any]:
    """Add a version; 409 says what the compatibility mode forbids in it."""
    made = _schemas(request).add_version(
        schema_id, body.content, tenant_id=admin.tenant_id, by=by(admin)
    )
    return (made or _found(request, schema_id, admin)).as_json()


@router.get("/{schema_id}/versions")
def list_versions(schema_id: str, request: Request, admin: Admin) -> dict[str, Any]:
    """Who changed what, when."""
    _found(request, schema_id, admin)
    found = _schemas(request).versions(schema_id, tenant_id=admin.tenant_id)
    return {"versions": history(found)}


@router.get("/{schema_id}/versions/{version}")
def get_version(schema_id: str, version: int, request: Request, admin: Admin) -> dict[str, Any]:
    """One version."""
    return _found(request, schema_id, admin, version).as_json()


@router.post("/{schema_id}/check")
def check(schema_id: str, body: Trial, request: Request, admin: Admin) -> dict[str, Any]:
    """What a new version, or a payload, would meet; nothing is written."""
    content = None
    if body.fields is not None or body.validations is not None:
        content = {"fields": body.fields or [], "validations": body.validations or []}
    return tried(_found(request, schema_id, admin), content=content, payload=body.payload)


def _schemas(request: Request) -> Schemas:
    schemas: Schemas = request.app.state.schemas
    return schemas


def _found(
    request: Request, schema_id: str, admin: TokenOwner, version: int | None = None
) -> SchemaVersion:
    found = _schemas(request).get(schema_id, version, tenant_id=admin.tenant_id)
    if found is None:
        which = "schema" if version is None else f"version {version} of a schema"
        raise HTTPException(404, f"There is no {which} {schema_id}; GET …/schemas lists them.")
    return found


async def refused(_: Request, error: Exception) -> JSONResponse:
    """422 for what is no schema, 409 for what does not go together with what there is."""
    return JSONResponse({"detail": str(error)}, 422 if isinstance(error, SchemaError) else 409)
