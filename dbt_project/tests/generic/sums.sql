{# Sums that have to agree. Each gives the places where they do not. #}

{# Rows, bytes and late rows of each touched hour, counted from silver alone. #}
{% test agrees_with_silver(model) %}
with built as (
    select hour, sum(row_count) as row_count, sum(bytes) as bytes, sum(late_count) as late_count
    from {{ model }} where {{ of_hours('hour') }} group by hour
),

plain as (
    select
        {{ hour_of('event_time') }} as hour,
        count(*) as row_count,
        sum({{ utf8_bytes('payload') }}) as bytes,
        sum(case when {{ is_late() }} then 1 else 0 end) as late_count
    from {{ silver('events') }}
    where {{ of_hours(hour_of('event_time')) }}
    group by 1
)

select coalesce(p.hour, b.hour) as hour, p.row_count as silver_rows, b.row_count as gold_rows
from plain p full outer join built b on b.hour = p.hour
where p.hour is null or b.hour is null or p.row_count <> b.row_count or p.bytes <> b.bytes
    or p.late_count <> b.late_count
{% endtest %}

{# Counts of each touched day, tenant and source, summed over its hours. #}
{% test agrees_with_hours(model) %}
with hours as (
    select hour_date, tenant_id, source_id,
        sum(event_count) as event_count, sum(row_count) as row_count, sum(late_count) as late_count
    from {{ ref('hours_of_days') }} group by hour_date, tenant_id, source_id
),

days as (select * from {{ model }} where {{ of_days('hour_date') }} and row_count > 0)

select coalesce(h.hour_date, d.hour_date) as hour_date, coalesce(h.source_id, d.source_id) as source_id
from hours h full outer join days d
    on d.hour_date = h.hour_date and d.tenant_id = h.tenant_id and d.source_id = h.source_id
where h.hour_date is null or d.hour_date is null or h.event_count <> d.event_count
    or h.row_count <> d.row_count or h.late_count <> d.late_count
{% endtest %}

{# The shares of a day and tenant add up to 1, or less where it has more than 100 event types, and the
   counts to those of its sources. #}
{% test agrees_with_days(model, days) %}
with tops as (
    select hour_date, tenant_id, sum(event_count) as event_count, sum(share) as share, count(*) as types
    from {{ model }} where {{ of_days('hour_date') }} group by hour_date, tenant_id
),

sources as (
    select hour_date, tenant_id, sum(event_count) as event_count
    from {{ days }} where {{ of_days('hour_date') }} and row_count > 0 group by hour_date, tenant_id
)

select coalesce(t.hour_date, s.hour_date) as hour_date, coalesce(t.tenant_id, s.tenant_id) as tenant_id
from tops t full outer join sources s on s.hour_date = t.hour_date and s.tenant_id = t.tenant_id
where t.hour_date is null or s.hour_date is null or t.share > 1.000001
    or t.event_count > s.event_count
    or (t.types < 100 and (t.event_count <> s.event_count or t.share < 0.999999))
{% endtest %}
