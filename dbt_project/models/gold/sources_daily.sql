{{ config(unique_key=['hour_date', 'tenant_id', 'source_id']) }}

with sent as (
    select
        hour_date,
        tenant_id,
        source_id,
        cast(sum(event_count) as bigint) as event_count,
        cast(sum(row_count) as bigint) as row_count,
        count(distinct event_type) as event_types,
        cast(sum(late_count) as bigint) as late_count,
        min(first_event_time) as first_event_time,
        max(last_event_time) as last_event_time,
        cast(sum(bytes) as bigint) as bytes
    from {{ ref('hours_of_days') }}
    group by hour_date, tenant_id, source_id
),

named as (
    select hour_date, tenant_id, source_id from sent
    union
    select hour_date, tenant_id, source_id from {{ ref('rejected_of_days') }}
)

select
    n.tenant_id,
    n.source_id,
    coalesce(s.event_count, 0) as event_count,
    coalesce(s.row_count, 0) as row_count,
    coalesce(u.unique_users, 0) as unique_users,
    coalesce(s.event_types, 0) as event_types,
    coalesce(q.quarantined_count, 0) as quarantined_count,
    coalesce(s.late_count, 0) as late_count,
    s.first_event_time,
    s.last_event_time,
    coalesce(s.bytes, 0) as bytes,
    {{ silver_version() }} as silver_version,
    n.hour_date
from named n
left join sent s
    on s.hour_date = n.hour_date and s.tenant_id = n.tenant_id and s.source_id = n.source_id
left join {{ ref('users_of_days') }} u
    on u.hour_date = n.hour_date and u.tenant_id = n.tenant_id and u.source_id = n.source_id
left join {{ ref('rejected_of_days') }} q
    on q.hour_date = n.hour_date and q.tenant_id = n.tenant_id and q.source_id = n.source_id
