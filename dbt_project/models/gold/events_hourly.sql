{{ config(unique_key=['hour', 'tenant_id', 'source_id', 'event_type']) }}

with sums as (
    select
        hour,
        tenant_id,
        source_id,
        event_type,
        cast(round(sum(weight)) as bigint) as event_count,
        count(*) as row_count,
        cast(sum(weight) as decimal(38, 9)) as weight,
        count(distinct user_key) as unique_users,
        count(value) as value_count,
        cast(sum(is_outside) as bigint) as value_outside,
        cast(sum(exact_value) as decimal(38, 9)) as value_sum,
        min(value) as value_min,
        max(value) as value_max,
        {{ quantile('value', 50) }} as value_p50,
        {{ quantile('value', 95) }} as value_p95,
        {{ quantile('value', 99) }} as value_p99,
        cast(sum(is_late) as bigint) as late_count,
        min(event_time) as first_event_time,
        max(event_time) as last_event_time,
        cast(sum(bytes) as bigint) as bytes
    from {{ ref('events_of_hours') }}
    group by hour, tenant_id, source_id, event_type
)

select
    hour,
    tenant_id,
    source_id,
    event_type,
    event_count,
    row_count,
    weight,
    unique_users,
    value_count,
    value_outside,
    value_sum,
    value_min,
    value_max,
    -- By way of the text, the sum is rounded to a double in the same way everywhere.
    case when value_count > 0
        then cast(cast(value_sum as varchar) as double) / cast(value_count as double) end as value_avg,
    value_p50,
    value_p95,
    value_p99,
    late_count,
    first_event_time,
    last_event_time,
    bytes,
    {{ silver_version() }} as silver_version,
    cast(hour as date) as hour_date
from sums
