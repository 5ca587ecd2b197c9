-- Callers' own requests to forward destinations. `open`: 1 while bytes may be leaving.
create table forwards (
    number integer primary key,
    id     blob not null,
    tenant integer not null,
    token  blob not null,
    open   integer not null,
    answer integer,
    doc    text not null
);
create unique index forwards_id on forwards (id);
create index forwards_token on forwards (token);
create index forwards_open on forwards (id) where open = 1;

-- What the destinations answered, redacted. Rows are only appended, and erased with their card by zeros of the same length, as
-- those of `sealed` are.
create table forward_answers (
    id     integer primary key,
    answer blob not null
);
