{# The events of the touched hours, with what the aggregates need of each. #}
with fields as (
    {{ with_fields(
        silver('events'),
        "tenant_id, source_id, event_type, event_time, received_at, payload, sample_rate",
        of_hours(hour_of('event_time'))
    ) }}
),

numbers as (
    select *,
        -- Without it -0.0 and 0.0 would be the least value by turns.
        case when abs(number) < 1e18 then case when number = 0 then 0e0 else number end end as value,
        case when abs(number) < 1e18 then 0 when number is null then 0 else 1 end as is_outside
    from fields
)

select
    {{ hour_of('event_time') }} as hour,
    tenant_id,
    source_id,
    event_type,
    event_time,
    case when {{ is_late() }} then 1 else 0 end as is_late,
    {{ utf8_bytes('payload') }} as bytes,
    -- A rate that is none counts as 1: the event is there.
    case when sample_rate > 1e-9 and sample_rate < 1
        then {{ exact('(1e0 / sample_rate)') }} else cast(1 as decimal(38, 9)) end as weight,
    user_key,
    value,
    is_outside,
    {{ exact('value') }} as exact_value
from numbers
