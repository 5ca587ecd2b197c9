-- How far the key store had come when this database was last used with it: an older one was rolled back. One row.
create table key_generation (
    only       integer primary key check (only = 1),
    generation integer not null
);
