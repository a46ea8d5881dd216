{# Every hour of the touched days, those included that the run does not touch. #}
{{ hours_of_days() }}
