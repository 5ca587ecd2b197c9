-- When cards were last used is in the index from here on. Of a card that was used before, no more is known than that it was not after
-- the newest charge of then: it counts as used at that time. One row, of which `uses` is null where nothing was charged.
create table retention (
    only integer primary key check (only = 1),
    uses integer
);
insert into retention (only, uses) select 1, max(created) from charges;
