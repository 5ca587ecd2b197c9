-- The installation that this database belongs to: one row, written at the first start and never again.
create table installation (
    only integer primary key check (only = 1),
    doc  text not null
);
