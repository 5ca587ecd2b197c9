-- Runs over many invoices. `at_work`: 1 while somebody has to do something about it (see `RunRow::is_at_work`).
create table invoice_runs (
    number  integer primary key,
    tenant  integer not null,
    id      blob not null,
    at_work integer not null,
    doc     text not null
);
create unique index invoice_runs_id on invoice_runs (tenant, id);
create index invoice_runs_at_work on invoice_runs (number) where at_work = 1;

-- The lines of a run, written once: line n of run r has the id r << 32 | n. `verdict`: 1 accepted, 2 already charged, 3 in flight,
-- 4 declined before, 5 conflict, 6 invalid. `other`: the charge (18 bytes) or line (its id, 8 bytes, big-endian) that has the
-- invoice.
create table invoice_run_lines (
    id      integer primary key,
    verdict integer not null,
    other   blob,
    doc     text not null
);

-- What became of an accepted line: its charge, or why it was not charged. A line has one mark, whatever crashes: it is inserted with
-- the charge and its first attempt.
create table invoice_run_marks (
    id      integer primary key,
    charge  blob,
    refused text
);
