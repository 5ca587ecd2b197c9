-- Declines that count against the networks' limits, by the number's fingerprint id, whichever token it has. `bar`: null for
-- nothing, -1 never again, -2 not before a new agreement, else microseconds until which nothing is tried.
create table network_declines (
    id          integer primary key,
    fingerprint blob not null,
    destination text not null,
    by_merchant integer not null,
    attempt     blob not null,
    at          integer not null,
    bar         integer
);
create index network_declines_of on network_declines (fingerprint, destination, by_merchant);
create index network_declines_at on network_declines (at);
