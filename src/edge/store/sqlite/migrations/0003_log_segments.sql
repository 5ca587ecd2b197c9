-- The log, a row for the events that were committed together (256 at most): a row and two index entries for each event cost
-- the writer more than the card that the event tells of. `heads` has 30 bytes for each event: its id (18), its tenant
-- (8, big-endian, ff… for none), the length of its leaf (4, big-endian); `leaves` are the leaves one after another, canonical JSON.
create table log_segments (
    first  integer primary key,
    count  integer not null,
    id_min blob not null,
    id_max blob not null,
    heads  blob not null,
    leaves blob not null
);
-- Ids begin with the time at which they were made, so few segments can hold one.
create index log_segments_ids on log_segments (id_max, id_min);

-- In which segments a tenant has events.
create table log_tenants (
    tenant integer not null,
    first  integer not null,
    primary key (tenant, first)
) without rowid;

insert into log_segments (first, count, id_min, id_max, heads, leaves)
select seq, 1, id, id,
    unhex(hex(id) || iif(tenant is null, 'FFFFFFFFFFFFFFFF', printf('%016X', tenant)) || printf('%08X', length(leaf))), leaf
from events;
insert into log_tenants (tenant, first) select tenant, seq from events where tenant is not null;
drop table events;
