-- The index on disk: sorted runs of blocks in place of one table. A generation of random keys that was merged into the table
-- wrote each of its pages again, more of them with each card stored; a run is written once, beside the others, and runs of a
-- level are merged into one of the next.
create table index_runs (
    run    integer primary key,
    level  integer not null,
    -- The first key of each block, in order: length (1) ‖ key.
    firsts blob not null
);
-- Block n of run r has the id r << 32 | n. `items`: key length (1) ‖ value length (2, big-endian, ffff for a deleted key) ‖
-- key ‖ value, in the order of the keys.
create table index_blocks (
    id    integer primary key,
    items blob not null
);

-- What was in the table waits in front of all else in the tail, an entry a row, and becomes the first run.
insert into tail (seq, batch)
select (select coalesce(min(seq), 1) from tail) - row_number() over (order by key),
    unhex(printf('%02X00%02X000000', length(key), length(value)) || hex(key) || hex(value))
from entries;
drop table entries;
