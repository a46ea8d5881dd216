{{ config(unique_key=['hour_date', 'tenant_id', 'rank']) }}

with counted as (
    select hour_date, tenant_id, event_type, cast(sum(event_count) as bigint) as event_count
    from {{ ref('hours_of_days') }}
    group by hour_date, tenant_id, event_type
),

ranked as (
    select *,
        row_number() over (
            partition by hour_date, tenant_id order by event_count desc, event_type
        ) as rank,
        sum(event_count) over (partition by hour_date, tenant_id) as all_count
    from counted
)

select
    tenant_id,
    rank,
    event_type,
    event_count,
    cast(event_count as double) / cast(all_count as double) as share,
    {{ silver_version() }} as silver_version,
    hour_date
from ranked
where rank <= 100
