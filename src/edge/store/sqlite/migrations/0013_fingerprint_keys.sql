-- The id of the fingerprint key that `mark` comes from; null for the first key of the tenant.
alter table sealed add column mark_key integer;
