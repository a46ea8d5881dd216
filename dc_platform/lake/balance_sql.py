"""The statements of `lake/balance.py`, in the order in which they run, over its views.

`silver`, `bronze` and `acks` hold the hours that are asked for, with `hour` as epoch hour; `all_…` hold
everything.
"""

_EXAMPLES = 5
_ADDRESS = "topic_id, kafka_partition, kafka_offset"
_KEY = "tenant_id, source_id, hour, topic_id"

# What a deletion has left in bronze. It takes rows from bronze first.
STUBS = f"""
    create temp table stubs as
    select {_ADDRESS}, kafka_index from bronze where verdict = 'deleted'
"""
SILVER_WITHOUT_STUBS = f"""
    create or replace temp table kept_silver as
    select * exclude (payload, tags) from silver anti join stubs using ({_ADDRESS}, kafka_index);
    create or replace temp view silver as select * from kept_silver
"""

# Of the topic that landed last, what lies beyond the border is to come; of one before it, never.
BORDERS = """
    create temp table borders as
    select topic_id, kafka_partition, next_offset, processed_at,
           topic_id = (select arg_max(topic_id, silver_version) from border) as lands
    from border
"""
_SETTLED = (
    "join borders using (topic_id, kafka_partition) where (kafka_offset < next_offset or not lands)"
)

# What bronze has, by block; of strangers' records together.
RECORDS = f"""
    create temp table records as
    select topic_id, kafka_partition,
           case when block_id is not null then kafka_offset end as kafka_offset,
           block_id, tenant_id, source_id, hour, any_value(block_events) as block_events,
           count(*) filter (verdict = 'valid') as valid,
           count(*) filter (verdict = 'rejected') as rejected,
           count(*) filter (verdict = 'sampled') as sampled,
           count(*) filter (verdict = 'deleted') as deleted
    from bronze {_SETTLED} group by all
"""

# Each acknowledgement with its record in bronze: the one at its address, or else of its name (the
# gateway did not know the address, or took an old topic for a new one). A topic that never landed is
# either to land yet, or was deleted before: then the one after it lands, long after (an hour: commits
# of a topic may come some seconds after its deletion, and nobody needs the name of the loss sooner).
ACKED = f"""
    create temp table acked as
    with places as (
        select distinct block_id, {_ADDRESS} from records where block_id is not null
    ), found as (
        select a.*, p.topic_id as topic, p.kafka_partition as part, p.kafka_offset as place
        from acks a left join places p on p.block_id = a.block_id
        qualify row_number() over (
            partition by a.block_id, a.tenant_id, a.source_id, a.hour
            order by p.topic_id = a.topic_id and p.kafka_partition = a.kafka_partition
                     and p.kafka_offset = a.kafka_offset desc nulls last, p.kafka_offset) = 1
    )
    select f.*, case
        when f.place is not null then 'landed'
        when exists (select 1 from gaps g where g.topic_id = f.topic_id
                     and g.kafka_partition = f.kafka_partition
                     and f.kafka_offset >= g.from_offset and f.kafka_offset < g.to_offset)
            then 'gap'
        when f.topic_id in (select topic_id from borders where not lands)
            and (b.next_offset is null or f.kafka_offset >= b.next_offset) then 'gap'
        when b.next_offset is null then if(
            f.topic_id <> '' and f.topic_id not in (select topic_id from borders)
            and f.acked_at < (select max(processed_at) from borders where lands) - interval 1 hour,
            'gap', 'in flight')
        when f.kafka_offset >= b.next_offset then 'in flight'
        else 'lost' end as state
    from found f left join borders b
        on b.topic_id = f.topic_id and b.kafka_partition = f.kafka_partition
"""

# Accepted events of bronze that silver does not have from that address: duplicates, or lost.
ABSENT = f"""
    create temp table absent as
    select {_KEY}, kafka_partition, kafka_offset, kafka_index, event_id
    from (select * from bronze {_SETTLED} and verdict = 'valid')
    anti join silver using ({_ADDRESS}, kafka_index)
"""


# Of each identity that silver has nowhere, the event that should have landed.
LOST = "create temp table lost as select * from absent anti join silver using (source_id, event_id)"
ELSEWHERE = """
    create or replace temp table lost as
    with there as (
        select distinct source_id, event_id from all_silver semi join lost
            using (source_id, event_id)
    )
    select * from lost anti join there using (source_id, event_id)
"""
# Kept out because they were deleted before.
GONE = f"""
    create temp table gone as select {_KEY} from absent limit 0;
    create temp table gone_rejects as select {_KEY} from absent limit 0
"""
DELETED = f"""
    insert into gone
    select {_KEY} from lost semi join tombstones using (source_id, event_id);
    create or replace temp table lost as
    select * from lost anti join tombstones using (source_id, event_id)
"""
NOT_FIRST = f"""
    create or replace temp table lost as
    with firsts as (
        select arg_min((topic_id, kafka_partition, kafka_offset, kafka_index),
            (processed_at, kafka_timestamp, kafka_partition, kafka_offset, kafka_index)) as first
        from (select * from all_bronze {_SETTLED} and verdict = 'valid')
        semi join lost using (source_id, event_id)
        group by source_id, event_id
    )
    select * from lost
    where (topic_id, kafka_partition, kafka_offset, kafka_index) in (select first from firsts)
"""


# Blocks that nobody but their header counts, and of which bronze lacks events.
SHORT = f"""
    create temp table short as
    select {_ADDRESS}, block_id, any_value(tenant_id) as tenant_id,
           min(source_id) as source_id, min(hour) as hour,
           any_value(block_events) - sum(valid + rejected + sampled + deleted) as events
    from records where block_events is not null and block_id not in (select block_id from acks)
    group by {_ADDRESS}, block_id having events > 0
"""
# The rest may stand in the hours beside these, or the line may.
REALLY_SHORT = f"""
    create or replace temp table short as
    with whole as (
        select {_ADDRESS}, any_value(block_events) - count(*) as events
        from all_bronze semi join short using ({_ADDRESS}) group by all
    )
    select s.* exclude (events), w.events
    from short s join whole w using ({_ADDRESS})
    where w.events > 0 and s.block_id not in (select block_id from all_acks)
"""

# Rows of silver that are there twice, or that bronze does not have: first where the counts tell of
# some, then which. A loss of the same hour would else be made up for by them.
SURPLUS = f"""
    create temp table surplus as
    select {_KEY}, null::integer as kafka_partition, null::bigint as kafka_offset,
           null::integer as kafka_index, null::varchar as event_id, sum(n)::bigint as events
    from (
        select {_KEY}, count(*) as n from silver {_SETTLED} group by all
        union all
        select {_KEY}, -valid from records
        union all
        select {_KEY}, count(*) from absent group by all
    ) group by all having sum(n) > 0
"""
SURPLUS_ROWS = f"""
    create or replace temp table surplus as
    with suspects as (
        select s.* from (select * from silver {_SETTLED}) s semi join surplus x
            on x.hour = s.hour and x.topic_id = s.topic_id
            and x.tenant_id is not distinct from s.tenant_id
            and x.source_id is not distinct from s.source_id
    )
    select {_KEY}, kafka_partition, kafka_offset, kafka_index, any_value(event_id) as event_id,
           count(*) - 1 as events
    from suspects group by all having count(*) > 1
    union all
    select {_KEY}, kafka_partition, kafka_offset, kafka_index, event_id, 1 as events
    from suspects anti join (select * from bronze where verdict = 'valid')
        using ({_ADDRESS}, kafka_index)
"""

LOST_REJECTS = f"""
    create temp table lost_rejects as
    select {_KEY}, kafka_partition, kafka_offset, kafka_index, whose, request_hash, request_index
    from (select *, coalesce(source_id, '') as whose from bronze {_SETTLED}
          and verdict = 'rejected')
    anti join (select coalesce(source_id, '') as whose, request_hash, request_index
               from quarantine) using (whose, request_hash, request_index)
"""
# One that was sent again stands in quarantine under the hour in which it came first.
REJECTED_ELSEWHERE = """
    create or replace temp table lost_rejects as
    select * from lost_rejects
    anti join (select coalesce(source_id, '') as whose, request_hash, request_index
               from all_quarantine) using (whose, request_hash, request_index)
"""

DIFFERENT_REJECTS = "select distinct whose, request_hash, request_index from lost_rejects"
DELETED_REJECTS = (
    f"""
    insert into gone_rejects
    select {_KEY} from lost_rejects
    semi join (select n.* from named_rejects n join tombstones t
               on t.event_id = n.name and coalesce(t.source_id, '') = n.whose)
        using (whose, request_hash, request_index)
    """,
    """
    create or replace temp table lost_rejects as
    select * from lost_rejects
    anti join (select n.* from named_rejects n join tombstones t
               on t.event_id = n.name and coalesce(t.source_id, '') = n.whose)
        using (whose, request_hash, request_index)
    """,
)


_RECORDS_WITHOUT_ACK = """
    select r.* from records r
    left join acked a on a.block_id = r.block_id and a.topic = r.topic_id
        and a.part = r.kafka_partition and a.place = r.kafka_offset
        and a.tenant_id is not distinct from r.tenant_id
        and a.source_id is not distinct from r.source_id and a.hour = r.hour
    where a.block_id is null
"""
_BLOCKS_IN_PART = """
    select a.tenant_id, a.source_id, a.hour, a.topic as topic_id,
           {'block': a.block_id, 'partition': part, 'offset': place, 'index': null::integer,
            'event': null::varchar,
            'events': a.events - coalesce(valid + rejected + sampled + deleted, 0)} as example
    from acked a left join records r on r.block_id = a.block_id and r.topic_id = a.topic
        and r.kafka_partition = a.part and r.kafka_offset = a.place
        and a.tenant_id is not distinct from r.tenant_id
        and a.source_id is not distinct from r.source_id and a.hour = r.hour
    where a.state = 'landed' and a.events > coalesce(valid + rejected + sampled + deleted, 0)
"""
_MISSING_EXAMPLES = f"""
    select {_KEY}, {{'block': block_id, 'partition': kafka_partition, 'offset': kafka_offset,
                     'index': null::integer, 'event': null::varchar, 'events': events}} as example
    from acked where state in ('lost', 'gap')
    union all
    select {_KEY}, {{'block': null, 'partition': kafka_partition, 'offset': kafka_offset,
                     'index': kafka_index, 'event': event_id, 'events': -events}} from surplus
    union all {_BLOCKS_IN_PART}
    union all
    select {_KEY}, {{'block': block_id, 'partition': kafka_partition, 'offset': kafka_offset,
                     'index': null, 'event': null, 'events': events}} from short
    union all
    select {_KEY}, {{'block': null, 'partition': kafka_partition, 'offset': kafka_offset,
                     'index': kafka_index, 'event': event_id, 'events': 1}} from lost
    union all
    select {_KEY}, {{'block': null, 'partition': kafka_partition, 'offset': kafka_offset,
                     'index': kafka_index, 'event': null, 'events': 1}} from lost_rejects
"""
LEDGER = f"""
    with parts as (
        select tenant_id, source_id, hour, coalesce(topic, topic_id) as topic_id,
               events as received, if(state = 'gap', events, 0) as gap,
               if(state = 'in flight', events, 0) as in_flight,
               if(state = 'in flight', acked_at, null) as in_flight_since from acked
        union all by name
        select {_KEY}, valid + rejected + sampled + deleted as received from ({
    _RECORDS_WITHOUT_ACK
})
        union all by name
        select {_KEY}, events as received from short
        union all by name
        select {_KEY}, rejected, sampled as sampled_out, deleted from records
        union all by name
        select {_KEY}, -1 as duplicates, 1 as deleted from gone
        union all by name
        select {_KEY}, -1 as rejected, 1 as deleted from gone_rejects
        union all by name
        select {_KEY}, -1 as rejected from lost_rejects
        union all by name
        select {_KEY}, count(*) as landed from silver {_SETTLED} group by all
        union all by name
        select {_KEY}, count(*) as duplicates from absent group by all
        union all by name
        select {_KEY}, -1 as duplicates from lost
    ), sums as (
        select {_KEY},
               {
    ", ".join(
        f"coalesce(sum({n}), 0)::bigint as {n}"
        for n in (
            *("received", "landed", "duplicates", "rejected", "sampled_out"),
            *("deleted", "gap", "in_flight"),
        )
    )
},
               min(in_flight_since) as in_flight_since
        from parts group by all
    ), named as (
        select {_KEY}, to_json(list(example))::varchar as examples from (
            select * from ({_MISSING_EXAMPLES})
            qualify row_number() over (
                partition by {_KEY}, example.events < 0 order by example) <= {_EXAMPLES}
        ) group by all
    )
    select s.tenant_id, s.source_id, to_timestamp(s.hour * 3600) as hour, s.topic_id, received,
           landed, duplicates, rejected, sampled_out, deleted, gap, in_flight, in_flight_since,
           received - landed - duplicates - rejected - sampled_out - deleted - gap - in_flight
               as missing,
           examples
    from sums s left join named e on e.hour = s.hour
        and e.tenant_id is not distinct from s.tenant_id
        and e.source_id is not distinct from s.source_id
        and e.topic_id is not distinct from s.topic_id
    order by s.hour, s.source_id, s.topic_id
"""
