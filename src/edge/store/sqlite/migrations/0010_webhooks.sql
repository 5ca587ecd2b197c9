-- Where webhooks go: `doc` is an `EndpointRow`.
create table webhook_endpoints (
    number integer primary key autoincrement,
    tenant integer not null,
    id     blob not null,
    doc    text not null
);
create unique index webhook_endpoints_id on webhook_endpoints (tenant, id);

-- What is told: written with the change that it tells of, where the tenant has an endpoint for it. `body` is what is posted.
create table webhook_notices (
    number  integer primary key autoincrement,
    tenant  integer not null,
    id      blob not null,
    created integer not null,
    kind    text not null,
    body    text not null
);
create unique index webhook_notices_id on webhook_notices (tenant, id);

-- A notice for one endpoint, by their numbers. `state`: 0 waits until `due` (microseconds), 1 delivered, 2 failed. The rest is of the
-- last attempt.
create table webhook_deliveries (
    notice   integer not null,
    endpoint integer not null,
    state    integer not null,
    due      integer not null,
    attempts integer not null,
    last     integer,
    status   integer,
    error    text,
    micros   integer,
    primary key (notice, endpoint)
) without rowid;
create index webhook_deliveries_of on webhook_deliveries (endpoint, notice);
create index webhook_deliveries_due on webhook_deliveries (endpoint, due) where state = 0;

-- How often a card's receivers were told of it; other things count their own revisions.
create table webhook_sequences (
    token blob primary key,
    last  integer not null
) without rowid;

-- The version of a card of which it was told that it expires soon: once each.
create table webhook_expiring (
    token   blob primary key,
    version integer not null
) without rowid;
