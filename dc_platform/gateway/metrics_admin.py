"""Definitions of metrics over HTTP (design 3.5). Needs a token with scope admin."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from dc_platform.contracts.metrics import AggregationType, DefinedMetric, Definition, MetricError
from dc_platform.gateway.admin import Admin
from dc_platform.registry.metrics import MetricExistsError, Metrics

router = APIRouter(prefix="/api/v1/admin")


class ChangedMetric(BaseModel):
    """Body of PUT: the whole definition but for the name."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    aggregation_type: AggregationType = Field(alias="aggregationType")
    field: str | None = None
    event_type: str | None = Field(default=None, alias="eventType")
    dimensions: list[str] = Field(default_factory=list)


class NewMetric(ChangedMetric):
    """Body of POST."""

    name: str


@router.post("/metrics", status_code=201)
def create_metric(body: NewMetric, request: Request, admin: Admin) -> dict[str, Any]:
    """Define a metric."""
    try:
        made = _metrics(request).create(_definition(body.name, body), tenant_id=admin.tenant_id)
    except MetricExistsError as error:
        raise HTTPException(409, str(error)) from error
    return made.shown()


@router.get("/metrics")
def list_metrics(request: Request, admin: Admin) -> dict[str, Any]:
    """All metrics of the tenant."""
    return {"metrics": [metric.shown() for metric in _metrics(request).list(admin.tenant_id)]}


@router.get("/metrics/{name}")
def get_metric(name: str, request: Request, admin: Admin) -> dict[str, Any]:
    """One metric."""
    return _found(_metrics(request).get(name, tenant_id=admin.tenant_id), name).shown()


@router.put("/metrics/{name}")
def put_metric(name: str, body: ChangedMetric, request: Request, admin: Admin) -> dict[str, Any]:
    """Give a metric another definition: its hours in gold are made anew."""
    metrics = _metrics(request)
    _found(metrics.get(name, tenant_id=admin.tenant_id), name)
    changed = metrics.change(_definition(name, body), tenant_id=admin.tenant_id)
    return _found(changed, name).shown()


@router.delete("/metrics/{name}")
def delete_metric(name: str, request: Request, admin: Admin) -> dict[str, bool]:
    """Delete a metric; the events stay, and its name is free."""
    if not _metrics(request).delete(name, tenant_id=admin.tenant_id):
        _found(None, name)
    return {"success": True}


def _definition(name: str, body: ChangedMetric) -> Definition:
    try:
        return Definition(
            name, body.aggregation_type, body.field, body.event_type, tuple(body.dimensions)
        )
    except MetricError as error:
        raise HTTPException(422, str(error)) from error


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _found(metric: DefinedMetric | None, name: str) -> DefinedMetric:
    if metric is None:
        raise HTTPException(404, f"There is no metric {name}; GET …/metrics lists them.")
    return metric
