-- Data keys that may have sealed a card which is erased: each is emptied, destroyed, and named by the erasure's certificate. `since`:
-- when the first such card was erased; `emptied`: when no record was left under it; `destroyed`: the event that says so.
create table erased_keys (
    key       integer primary key,
    tenant    integer not null,
    since     integer not null,
    emptied   integer,
    destroyed blob
);
