"""GET /api/v1/metrics/{name} (design 4.2): a defined metric over time, from the union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response

from dc_platform.contracts.fields import seconds_of
from dc_platform.contracts.metrics import DefinedMetric, MetricError
from dc_platform.registry.metrics import Metrics
from dc_platform.serving.answers import completeness
from dc_platform.serving.conditions import from_url, microseconds
from dc_platform.serving.engine import Engine
from dc_platform.serving.metric_plan import SOURCE, MetricPlan
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.routes import InTurn, Reader
from dc_platform.serving.series import MOST_SPANS, Datapoints, Fill, Shape, back_of, shaped
from dc_platform.serving.view import View
from dc_platform.serving.views import current_view

router = APIRouter(prefix="/api/v1")
MAX_DATAPOINTS = 100_000


@router.get("/metrics/{name}", dependencies=[InTurn])
def get_metric(
    name: str,
    request: Request,
    reader: Reader,
    from_: Annotated[str | None, Query(alias="from")] = None,
    to: str | None = None,
    granularity: str = "1m",
    dimensions: str = "",
    fill: Fill = "none",
    window: Annotated[int, Query(ge=1, le=MOST_SPANS)] = 1,
    compare: str | None = None,
    explain: bool = False,
) -> Response:
    """The metric per `granularity` and value of the `dimensions`; spans without a value are left out.

    Times are epoch milliseconds or ISO 8601; the range is [from, to). `fill` says what stands in spans
    without a value, `window` over how many spans an average moves, `compare` how far back the value is
    that each is compared with.
    """
    metrics: Metrics = request.app.state.metrics
    engine: Engine = request.app.state.engine
    metric = metrics.get(name, tenant_id=reader.tenant_id)
    if metric is None:
        raise HTTPException(404, f"There is no metric {name}; dcp metric list shows all.")
    names = [part.strip() for part in dimensions.split(",") if part.strip()]
    try:
        view, seconds = current_view(request), _seconds(granularity)
        plans: list[dict[str, Any]] = []

        def ask(from_us: int | None, to_us: int | None) -> Datapoints:
            answer = datapoints(
                engine,
                view,
                metric,
                from_us=from_us,
                to_us=to_us,
                seconds=seconds,
                dimensions=names,
                explain=explain,
            )
            plans.extend([answer["plan"]] if explain else [])
            found: Datapoints = answer["datapoints"]
            return found

        points = shaped(
            ask,
            Shape(fill, window, back_of(compare) * 1000),
            from_us=microseconds("from", from_url(from_)),
            to_us=microseconds("to", from_url(to)),
            span=seconds * 1000,
            most=MAX_DATAPOINTS,
        )
        content = {"datapoints": points, **completeness(view)}
        if explain:
            # Of the time that was asked for; what it is compared with is planned alike.
            content["plan"] = plans[0]
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
