{# Where DuckDB and Trino differ. Both give the same bits, which the parity test holds. #}

{% macro hour_of(time) %}date_trunc('hour', {{ time }}){% endmacro %}

{% macro is_late() %}{{ return(adapter.dispatch('is_late')()) }}{% endmacro %}
{% macro duckdb__is_late() %}(epoch_ms(received_at) - epoch_ms(event_time) > 3600000){% endmacro %}
{% macro trino__is_late() %}(date_diff('millisecond', event_time, received_at) > 3600000){% endmacro %}

{% macro utf8_bytes(text) %}{{ return(adapter.dispatch('utf8_bytes')(text)) }}{% endmacro %}
{% macro duckdb__utf8_bytes(text) %}coalesce(strlen({{ text }}), 0){% endmacro %}
{% macro trino__utf8_bytes(text) %}coalesce(length(to_utf8({{ text }})), 0){% endmacro %}

{# Columns `number` (double) and `user_key` (text) of a payload. A number is what JSON calls one;
   "12" is text. DuckDB parses each payload once. #}
{% macro with_fields(table, columns, where) %}{{ return(adapter.dispatch('with_fields')(table, columns, where)) }}{% endmacro %}

{% macro duckdb__with_fields(table, columns, where) %}
  select {{ columns }},
    case when left(fields[1], 1) in {{ duckdb_number_begins() }} then try_cast(fields[1] as double) end as number,
    coalesce({{ duckdb_scalar('fields[2]') }}, {{ duckdb_scalar('fields[3]') }}) as user_key
  from (
    select *, try(json_extract(payload, ['$.value', '$.userId', '$.user_id'])::varchar[]) as fields
    from {{ table }} where {{ where }}
  ) parsed
{% endmacro %}

{% macro duckdb_number_begins() %}('-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'){% endmacro %}

{% macro duckdb_scalar(json) -%}
  case when left({{ json }}, 1) = '"' then json_extract_string({{ json }}, '$')
    when left({{ json }}, 1) in ('{', '[') or {{ json }} = 'null' then null
    else {{ json }} end
{%- endmacro %}

{% macro trino__with_fields(table, columns, where) %}
  select {{ columns }},
    case when {{ trino_is_number('value') }} then cast(json_extract_scalar(payload, '$.value') as double) end as number,
    coalesce({{ trino_scalar('userId') }}, {{ trino_scalar('user_id') }}) as user_key
  from {{ table }} where {{ where }}
{% endmacro %}

{% macro trino_is_number(key) -%}
  regexp_like(json_extract_scalar(payload, '$.{{ key }}'), '^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\z')
  and json_format(json_extract(payload, '$.{{ key }}')) <> '"' || json_extract_scalar(payload, '$.{{ key }}') || '"'
{%- endmacro %}

{# A number with a point or an exponent by its value: DuckDB does not keep how it was written. #}
{% macro trino_scalar(key) -%}
  case when regexp_like(json_extract_scalar(payload, '$.{{ key }}'), '[.eE]') and {{ trino_is_number(key) }}
    then cast(cast(json_extract_scalar(payload, '$.{{ key }}') as double) as varchar)
    else json_extract_scalar(payload, '$.{{ key }}') end
{%- endmacro %}

{# A double as a decimal with 9 places: of its shortest text, half away from zero. In DuckDB texts take
   10 µs each to become a decimal of 38 digits, and 0.1 to become one of 18. #}
{% macro exact(number) %}{{ return(adapter.dispatch('exact')(number)) }}{% endmacro %}

{% macro duckdb__exact(number) -%}
  case when abs({{ number }}) < 999999999 then cast(cast({{ number }} as varchar) as decimal(18, 9))::decimal(38, 9)
    else cast(cast({{ number }} as varchar) as decimal(38, 9)) end
{%- endmacro %}

{% macro trino__exact(number) %}cast(cast({{ number }} as varchar) as decimal(38, 9)){% endmacro %}

{# The value at place ceil(percent / 100 * n) of the n values in order; null without values. #}
{% macro quantile(value, percent) %}{{ return(adapter.dispatch('quantile')(value, percent)) }}{% endmacro %}

{% macro duckdb__quantile(value, percent) %}quantile_disc({{ value }}, {{ '0.%02d' | format(percent) }}){% endmacro %}

{% macro trino__quantile(value, percent) -%}
  element_at(array_sort(array_agg({{ value }}) filter (where {{ value }} is not null)),
    nullif((count({{ value }}) * {{ percent }} + 99) / 100, 0))
{%- endmacro %}
