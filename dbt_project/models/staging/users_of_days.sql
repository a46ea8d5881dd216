{# The users of the touched days. #}
with fields as (
    {{ with_fields(
        silver('events_of_days'),
        "tenant_id, source_id, cast(" ~ hour_of('event_time') ~ " as date) as hour_date",
        of_days('cast(' ~ hour_of('event_time') ~ ' as date)')
    ) }}
)

select hour_date, tenant_id, source_id, count(distinct user_key) as unique_users
from fields
group by hour_date, tenant_id, source_id
