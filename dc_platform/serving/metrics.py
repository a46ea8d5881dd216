"""GET /api/v1/metrics/{name} (design 4.2): a defined metric over time, from the union."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response

from dc_platform.contracts.fields import seconds_of
from dc_platform.contracts.metrics import DefinedMetric, MetricError
from dc_platform.registry.metrics import Metrics
from dc_platform.serving.answers import completeness
from dc_platform.serving.engine import Engine
from dc_platform.serving.metric_plan import SOURCE, MetricPlan
from dc_platform.serving.query import microseconds
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.routes import Reader, current_view
from dc_platform.serving.view import View

router = APIRouter(prefix="/api/v1")
MAX_DATAPOINTS = 100_000


@router.get("/metrics/{name}")
def get_metric(
    name: str,
    request: Request,
    reader: Reader,
    from_: Annotated[str | None, Query(alias="from")] = None,
    to: str | None = None,
    granularity: str = "1m",
    dimensions: str = "",
    explain: bool = False,
) -> Response:
    """The metric per `granularity` and value of the `dimensions`; spans without a value are left out.

    Times are epoch milliseconds or ISO 8601; the range is [from, to).
    """
    metrics: Metrics = request.app.state.metrics
    engine: Engine = request.app.state.engine
    metric = metrics.get(name, tenant_id=reader.tenant_id)
    if metric is None:
        raise HTTPException(404, f"There is no metric {name}; dcp metric list shows all.")
    names = [part.strip() for part in dimensions.split(",") if part.strip()]
    try:
        content = datapoints(
            engine,
            current_view(request),
            metric,
            from_us=microseconds("from", _time(from_)),
            to_us=microseconds("to", _time(to)),
            seconds=_seconds(granularity),
            dimensions=names,
            explain=explain,
        )
    except KNOWN as error:
        raise refusal(error, bad=422) from error
    return Response(msgspec.json.encode(content), media_type="application/json")


def datapoints(
    engine: Engine,
    view: View,
    metric: DefinedMetric,
    *,
    from_us: int | None,
    to_us: int | None,
    seconds: int,
    dimensions: Sequence[str],
    explain: bool = False,
) -> dict[str, Any]:
    """The answer: `datapoints` of `timestamp` (epoch milliseconds), `value`, `dimensions`, in order of
    time; with `explain` also the `plan`. Times are in epoch microseconds.
    """
    definition = metric.definition
    known = (*definition.dimensions, SOURCE)
    for dimension in dimensions:
        if dimension not in known:
            raise MetricError(
                f"dimensions: {definition.name} has {', '.join(known)}, not {dimension}"
            )
    asked = MetricPlan(
        engine,
        view,
        metric,
        from_us=from_us,
        to_us=to_us,
        seconds=seconds,
        dimensions=dimensions,
        limit=MAX_DATAPOINTS + 1,
    )
    table = asked.table()
    if len(table) > MAX_DATAPOINTS:
        raise MetricError(
            f"granularity: these are more than {MAX_DATAPOINTS} datapoints; ask for longer spans,"
            " less time or fewer dimensions"
        )
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return {
        "datapoints": [
            {
                "timestamp": at,
                "value": value,
                "dimensions": {
                    k: v for k, v in zip(dimensions, found, strict=True) if v is not None
                },
            }
            for at, *found, value in rows
        ],
        **({"plan": asked.shown()} if explain else {}),
        **completeness(view),
    }


def _seconds(granularity: str) -> int:
    found = seconds_of(granularity)
    if found is None:
        raise MetricError(f"granularity: a number and s, m, h or d, as in 5m; got {granularity!r}")
    return found


def _time(text: str | None) -> int | str | None:
    """What was digits in the URL is a number."""
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,17}", text) else text
