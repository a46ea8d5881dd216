"""Retention policies over HTTP (design 4.5): set, look at, end. Needs a token with scope admin.

What a policy would delete, and what was deleted, is asked of serving, which knows the lake.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dc_platform.contracts.envelope import MAX_EVENT_TYPE_LENGTH
from dc_platform.gateway.admin import Admin
from dc_platform.registry.database import iso_time
from dc_platform.registry.retention import Policy, Retention
from dc_platform.registry.tokens import TokenOwner

router = APIRouter(prefix="/api/v1/admin")

# A hundred years.
_MOST_DAYS = 36_500


class NewPolicy(BaseModel):
    """Body of POST."""

    model_config = ConfigDict(extra="forbid")

    dataType: str = Field(min_length=1, max_length=MAX_EVENT_TYPE_LENGTH)  # noqa: N815
    retentionDays: int = Field(ge=1, le=_MOST_DAYS)  # noqa: N815
    archiveAfterDays: int = Field(ge=0, le=_MOST_DAYS)  # noqa: N815

    @model_validator(mode="after")
    def _archived_before_deleted(self) -> NewPolicy:
        if self.archiveAfterDays > self.retentionDays:
            raise ValueError("archiveAfterDays is beyond retentionDays: give at most as many")
        return self


@router.post("/retention-policy", status_code=201)
def set_policy(body: NewPolicy, request: Request, admin: Admin) -> dict[str, str]:
    """Set the policy of a data type, an event type or `*`; it takes the place of the one before."""
    policy = _retention(request).set_policy(
        admin.tenant_id,
        body.dataType,
        retention_days=body.retentionDays,
        archive_after_days=body.archiveAfterDays,
    )
    return {"policyId": policy.policy_id}


@router.get("/retention-policy")
def list_policies(request: Request, admin: Admin) -> dict[str, Any]:
    """The policies in force of the tenant."""
    return {"policies": [_shown(p) for p in _retention(request).policies(admin.tenant_id)]}


@router.get("/retention-policy/{policy_id}")
def get_policy(policy_id: str, request: Request, admin: Admin) -> dict[str, Any]:
    """One policy."""
    return _shown(_found(_retention(request).policy(policy_id), policy_id, admin))


@router.delete("/retention-policy/{policy_id}")
def end_policy(policy_id: str, request: Request, admin: Admin) -> dict[str, bool]:
    """End a policy: nothing more is deleted by it; what was deleted stays deleted."""
    retention = _retention(request)
    _found(retention.policy(policy_id), policy_id, admin)
    return {"success": retention.end_policy(policy_id)}


def _retention(request: Request) -> Retention:
    return Retention(request.app.state.sources.database)


def _found(policy: Policy | None, policy_id: str, admin: TokenOwner) -> Policy:
    if policy is None or policy.tenant_id != admin.tenant_id:
        raise HTTPException(
            404, f"There is no policy {policy_id}; GET …/retention-policy lists them."
        )
    return policy


def _shown(policy: Policy) -> dict[str, Any]:
    return {
        "policyId": policy.policy_id,
        "dataType": policy.data_type,
        "retentionDays": policy.retention_days,
        "archiveAfterDays": policy.archive_after_days,
        "createdAt": iso_time(policy.created_ms),
    }
