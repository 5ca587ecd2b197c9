-- When cards were last used is in the index from here on. Of a card that was used before, no more is known than that it was not after
-- the newest charge or forward of then: it counts as used at that time. One row, of which `uses` is null where there was neither.
create table retention (
    only integer primary key check (only = 1),
    uses integer
);
insert into retention (only, uses) select 1, max(used) from (
    select created as used from charges union all select json_extract(doc, '$.created_at') from forwards
);
