-- Where in the log an id or a tenant's events are, a row for 64 segments: to keep it segment by segment cost each commit two pages of
-- its own, a quarter of what a charge writes. What is behind the last span is looked through.
create table log_spans (
    -- The place of its first event, and the place behind its last.
    first  integer primary key,
    next   integer not null,
    id_min blob not null,
    id_max blob not null
);
create index log_spans_ids on log_spans (id_max, id_min);

-- In which spans a tenant has events.
create table log_span_tenants (
    tenant integer not null,
    first  integer not null,
    primary key (tenant, first)
) without rowid;

insert into log_spans (first, next, id_min, id_max)
select min(first), max(next), min(id_min), max(id_max)
from (
    select first, first + count as next, id_min, id_max, (row_number() over (order by first) - 1) / 64 as span
    from log_segments
)
group by span having count(*) = 64;
insert into log_span_tenants (tenant, first)
select distinct tenant, (select max(first) from log_spans where log_spans.first <= log_tenants.first)
from log_tenants
where first < (select max(next) from log_spans);

drop index log_segments_ids;
drop table log_tenants;
