-- Every key that comes at random (fingerprint, idempotency key, customer, invoice, …) is an entry of the index; the tables
-- below grow at their right edge, so that a commit of many changes writes few pages.

-- What a card shows and where it stands. `status`: 1 active, 2 suspended, 3 erasing, 4 erased. `flags`: 1 legal hold,
-- 2 to be erased when the hold is released. `updated` counts microseconds since `created`. `details`: customer, metadata,
-- truncated number, fingerprint id.
create table cards (
    token    blob primary key,
    tenant   integer not null,
    status   integer not null,
    version  integer not null,
    flags    integer not null,
    sealed   integer,
    created  integer not null,
    updated  integer not null,
    erased   integer,
    scrubbed integer,
    details  blob not null
) without rowid;

-- The sealed fields of one version of one card. Rows are only appended, and erased by zeros of the same length: a row that
-- moves from page to page (as rows of a table without rowid do) leaves copies behind that secure_delete does not reach.
-- `mark` is derived from the fingerprint and leads to its index entry; no digit of the number stands in this table.
create table sealed (
    id       integer primary key,
    sealed   blob not null,
    mark     blob not null,
    body_mac blob
);

-- Versions before the current one, for replays; `sealed` loses its PAN unless an attempt pins the version.
create table card_versions (
    token   blob not null,
    version integer not null,
    sealed  integer not null,
    created integer not null,
    updated integer not null,
    details blob not null,
    primary key (token, version)
) without rowid;

-- Body MACs of requests about a card that is there already; zeroed when it is erased.
create table body_macs (
    id  integer primary key,
    mac blob not null
);

-- Answers frozen under an idempotency key.
create table answers (
    id     integer primary key,
    answer blob not null
);

create table charges (
    tenant  integer not null,
    id      blob not null,
    created integer not null,
    status  text not null,
    destination text not null,
    doc     text not null,
    primary key (tenant, id)
) without rowid;

create table principals (
    id  blob primary key,
    doc text not null
) without rowid;

create table tenants (
    id   integer primary key,
    name text not null unique,
    doc  text not null
);

create table agreements (
    token blob not null,
    id    blob not null,
    doc   text not null,
    primary key (token, id)
) without rowid;

-- The log. The tree keeps a row for each 256 finished nodes (levels 8, 16, 24, …); what lies below is computed from leaves.
create table events (
    seq    integer primary key,
    id     blob not null,
    tenant integer,
    leaf   blob not null
);
create unique index events_id on events (id);
create index events_tenant on events (tenant) where tenant is not null;

create table tree (
    level integer not null,
    idx   integer not null,
    hash  blob not null,
    primary key (level, idx)
) without rowid;

create table checkpoints (
    size integer primary key,
    note text not null
);

-- The index: sorted, and the durable tail in front of it that has not been merged yet.
create table entries (
    key   blob primary key,
    value blob not null
) without rowid;

create table tail (
    seq   integer primary key,
    batch blob not null
);
