{# What the run is about. DuckDB has it in tables of the scratch file: variables would make dbt parse
   the project anew in each run. On Trino: --vars '{silver_version: 7, quarantine_version: 3, hours:
   [epoch hours] or null for all, days: [iso dates] or null for all}'. #}

{% macro of_hours(hour) %}{{ return(adapter.dispatch('of_hours')(hour)) }}{% endmacro %}

{% macro duckdb__of_hours(hour) %}{{ hour }} in (select hour from {{ source('run', 'hours') }}){% endmacro %}

{% macro trino__of_hours(hour) -%}
  {%- set hours = var('hours', none) -%}
  {%- if hours is none -%} true
  {%- elif not hours -%} false
  {%- else -%}
    {{ hour }} in ({% for h in hours %}from_unixtime({{ h * 3600 }}){% if not loop.last %}, {% endif %}{% endfor %})
  {%- endif -%}
{%- endmacro %}

{% macro of_days(day) %}{{ return(adapter.dispatch('of_days')(day)) }}{% endmacro %}

{% macro duckdb__of_days(day) %}{{ day }} in (select day from {{ source('run', 'days') }}){% endmacro %}

{% macro trino__of_days(day) -%}
  {%- set days = var('days', none) -%}
  {%- if days is none -%} true
  {%- elif not days -%} false
  {%- else -%}
    {{ day }} in ({% for d in days %}date '{{ d }}'{% if not loop.last %}, {% endif %}{% endfor %})
  {%- endif -%}
{%- endmacro %}

{% macro silver_version() %}{{ return(adapter.dispatch('silver_version')()) }}{% endmacro %}

{% macro duckdb__silver_version() %}(select silver_version from {{ source('run', 'pinned') }}){% endmacro %}

{% macro trino__silver_version() %}cast({{ var('silver_version', 0) }} as bigint){% endmacro %}

{# A table of silver, pinned. #}
{% macro silver(table) %}{{ return(adapter.dispatch('silver')(table)) }}{% endmacro %}

{% macro duckdb__silver(table) %}{{ source('silver', table) }}{% endmacro %}

{% macro trino__silver(table) -%}
  {%- set version = var('quarantine_version', 0) if table == 'quarantine' else var('silver_version', 0) -%}
  {{ source('silver', table) }} for version as of {{ version }}
{%- endmacro %}

{# The hours of the touched days: those that the run has built, and on DuckDB the others as they are
   published. On Trino they are all in one table. #}
{% macro hours_of_days() %}{{ return(adapter.dispatch('hours_of_days')()) }}{% endmacro %}

{% macro duckdb__hours_of_days() %}
  select * from {{ ref('events_hourly') }}
  union all by name
  select * from {{ source('published', 'events_hourly') }} where not {{ of_hours('hour') }}
{% endmacro %}

{% macro trino__hours_of_days() %}
  select * from {{ ref('events_hourly') }} where {{ of_days('hour_date') }}
{% endmacro %}

{# Trino, after the merge: rows of the touched hours (days) that this run did not write. #}
{% macro drop_what_is_gone(relation) %}{{ return(adapter.dispatch('drop_what_is_gone')(relation)) }}{% endmacro %}

{% macro duckdb__drop_what_is_gone(relation) %}{% endmacro %}

{% macro trino__drop_what_is_gone(relation) %}
  {%- if config.get('materialized') == 'incremental' and not should_full_refresh() %}
  delete from {{ relation }}
  where silver_version <> {{ silver_version() }}
    and {{ of_hours('hour') if relation.identifier == 'events_hourly' else of_days('hour_date') }}
  {%- endif %}
{% endmacro %}

{# What of a table of gold this run has built. #}
{% macro touched(model) -%}
  {{ of_hours('hour') if 'events_hourly' in model | string else of_days('hour_date') }}
{%- endmacro %}
