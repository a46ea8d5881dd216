{# Tests of the rows that the run has built. #}

{% test never_null(model, columns) %}
select * from {{ model }}
where {{ touched(model) }} and ({% for c in columns %}{{ c }} is null{% if not loop.last %} or {% endif %}{% endfor %})
{% endtest %}

{% test unique_grain(model, columns) %}
select {{ columns | join(', ') }}, count(*) as row_count
from {{ model }}
where {{ touched(model) }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{# `expressions` hold for every row; null counts as broken. #}
{% test holds(model, expressions) %}
select * from {{ model }}
where {{ touched(model) }}
  and not coalesce({% for e in expressions %}({{ e }}){% if not loop.last %} and {% endif %}{% endfor %}, false)
{% endtest %}
