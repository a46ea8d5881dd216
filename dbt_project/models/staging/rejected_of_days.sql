{# What was rejected on the touched days, by the day of its receipt. #}
with rejected as (
    select
        cast({{ hour_of('received_at') }} as date) as hour_date,
        tenant_id,
        coalesce(source_id, '') as source_id
    from {{ silver('quarantine') }}
)

select hour_date, tenant_id, source_id, count(*) as quarantined_count
from rejected
where {{ of_days('hour_date') }}
group by hour_date, tenant_id, source_id
