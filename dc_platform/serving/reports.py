"""Saved reports over HTTP. Reading and running takes scope query, changing them scope admin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import anyio.to_thread
import msgspec
import pyarrow as pa
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dc_platform.contracts.reports import Parameter, ParameterType, Report, ReportError, filled
from dc_platform.registry.access import need_scope
from dc_platform.registry.reports import ReportExistsError, Reports, SavedReport
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.serving.answers import answer
from dc_platform.serving.guard import Guard, RefusedError
from dc_platform.serving.refusals import KNOWN, refusal, sentence
from dc_platform.serving.results import WRITERS, Format
from dc_platform.serving.routes import AskedQuery, Reader
from dc_platform.serving.sql import MEDIA, Sql, format_of, stream
from dc_platform.serving.turns import Turns
from dc_platform.serving.views import view_as_of

router = APIRouter(prefix="/api/v1")
Admin = Annotated[TokenOwner, Depends(need_scope(Scope.ADMIN))]
_SAMPLES = {
    ParameterType.TEXT: "x",
    ParameterType.NUMBER: "1",
    ParameterType.BOOLEAN: "true",
    ParameterType.TIMESTAMP: "0",
}
_encode = msgspec.json.Encoder().encode


class BodyParameter(BaseModel):
    """A parameter; `default` as text, or none."""

    model_config = ConfigDict(extra="forbid")

    type: ParameterType = ParameterType.TEXT
    default: str | int | float | bool | None = None


class ChangedReport(BaseModel):
    """Body of PUT: the whole definition but for the name."""

    model_config = ConfigDict(extra="forbid")

    sql: str | None = Field(None, min_length=1, max_length=100_000)
    query: dict[str, Any] | None = None
    parameters: dict[str, BodyParameter] = Field(default_factory=dict, max_length=64)
    description: str = Field("", max_length=1000)


class NewReport(ChangedReport):
    """Body of POST."""

    name: str


@router.post("/reports", status_code=201)
def create_report(body: NewReport, request: Request, admin: Admin) -> dict[str, Any]:
    """Save a report."""
    report = _checked(body.name, body)
    try:
        return _reports(request).create(report, by=admin.hint, tenant_id=admin.tenant_id).shown()
    except ReportExistsError as error:
        raise HTTPException(409, str(error)) from error


@router.get("/reports")
def list_reports(request: Request, reader: Reader) -> dict[str, Any]:
    """All reports of the tenant."""
    return {"reports": [saved.shown() for saved in _reports(request).list(reader.tenant_id)]}


@router.get("/reports/{name}")
def get_report(name: str, request: Request, reader: Reader) -> dict[str, Any]:
    """One report."""
    return _found(_reports(request).get(name, tenant_id=reader.tenant_id), name).shown()


@router.put("/reports/{name}")
def put_report(name: str, body: ChangedReport, request: Request, admin: Admin) -> dict[str, Any]:
    """Give a report another definition."""
    _found(_reports(request).get(name, tenant_id=admin.tenant_id), name)
    report = _checked(name, body)
    changed = _reports(request).change(report, by=admin.hint, tenant_id=admin.tenant_id)
    return _found(changed, name).shown()


@router.delete("/reports/{name}")
def delete_report(name: str, request: Request, admin: Admin) -> dict[str, bool]:
    """Delete a report."""
    if not _reports(request).delete(name, tenant_id=admin.tenant_id):
        _found(None, name)
    return {"success": True}


@router.get("/reports/{name}/run")
async def run_report(
    name: str,
    request: Request,
    reader: Reader,
    format_: Annotated[Format | None, Query(alias="format")] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
    as_of: Annotated[str | None, Query(alias="asOf")] = None,
    accept: Annotated[str | None, Header()] = None,
    x_framed: Annotated[bool, Header()] = False,
) -> Response:
    """Run a report; whatever else the URL has are its parameters, which are bound as values."""
    report = _found(_reports(request).get(name, tenant_id=reader.tenant_id), name).report
    given = {k: v for k, v in request.query_params.items() if k not in ("format", "limit", "asOf")}
    try:
        values = report.bound(given)
    except ReportError as error:
        raise HTTPException(422, str(error)) from error
    form = format_ or format_of(accept)
    if report.sql is not None:
        asked = Sql(report.sql, values, form, limit, as_of)
        return await stream(request, asked, tenant_id=reader.tenant_id, framed=x_framed)
    turns: Turns = request.app.state.turns
    async with turns.taken(reader.tenant_id):
        body = {**filled(report.query, values), "asOf": as_of}
        if limit is not None:
            body["limit"] = limit
        return await anyio.to_thread.run_sync(_answered, request, body, form, reader.tenant_id)


def _answered(request: Request, body: dict[str, Any], form: Format, tenant_id: str) -> Response:
    """The answer to a query: as POST /query gives it, or its results as rows."""
    try:
        query = AskedQuery.model_validate(body)
        view = view_as_of(request, query.as_of, tenant_id)
        content = answer(request.app.state.engine, view, query, tenant_id=tenant_id)
        if form == "json":
            return Response(_encode(content), media_type=MEDIA[form])
        rows = _Rows(content["results"])
        return Response(b"".join(WRITERS[form](rows)), media_type=MEDIA[form])
    except ValidationError as error:
        raise HTTPException(422, sentence(_located(error))) from error
    except KNOWN as error:
        raise refusal(error, bad=422) from error


class _Rows:
    """Results of a query as one batch, with the columns of all of its rows: groups and events have
    different ones.
    """

    def __init__(self, found: list[dict[str, Any]]) -> None:
        rows = msgspec.json.decode(_encode(found), type=list[dict[str, Any]])
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = [_column([row.get(name) for row in rows]) for name in names]
        self._batch = pa.RecordBatch.from_arrays(columns, names)
        self.schema = self._batch.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        yield self._batch


def _column(values: list[Any]) -> pa.Array:
    """Values of one type as they are; of several, and what is nested, as text: JSON of what is none."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} or (len(kinds) <= 1 and not kinds & {dict, list}):
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            # An integer that Arrow, or a double, has not.
            pass
    return pa.array(
        [v if v is None or isinstance(v, str) else _encode(v).decode() for v in values], pa.string()
    )


def _located(error: ValidationError) -> list[dict[str, Any]]:
    """Errors as those of a request's body, whose places begin with `body`."""
    return [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]


def _checked(name: str, body: ChangedReport) -> Report:
    """The report, when it could run; raises HTTPException 422 that says why not."""
    parameters = {
        key: Parameter(one.type, None if one.default is None else _text(one.default))
        for key, one in body.parameters.items()
    }
    try:
        report = Report(name, body.sql, body.query, parameters, body.description)
        if report.sql is not None:
            report.check_named(Guard().check(report.sql).parameters)
        else:
            samples = {key: _SAMPLES[one.type] for key, one in parameters.items()}
            AskedQuery.model_validate(filled(report.query, report.bound(samples)))
    except (ReportError, RefusedError) as error:
        raise HTTPException(422, str(error)) from error
    except ValidationError as error:
        raise HTTPException(422, f"query: {sentence(_located(error))}") from error
    return report


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports


def _found(saved: SavedReport | None, name: str) -> SavedReport:
    if saved is None:
        raise HTTPException(404, f"There is no report {name}; GET /api/v1/reports lists them.")
    return saved
