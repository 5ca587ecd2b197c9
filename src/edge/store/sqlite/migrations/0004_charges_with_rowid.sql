-- A charge's document of one to two kilobytes does not fit into a page of a table without rowid: each took a page of its own
-- behind it. In a table with rowid it lies with others, and a new charge and its outcome write the same page.
create table charges_with_rowid (
    row     integer primary key,
    tenant  integer not null,
    id      blob not null,
    created integer not null,
    status  text not null,
    destination text not null,
    doc     text not null
);
insert into charges_with_rowid (tenant, id, created, status, destination, doc)
select tenant, id, created, status, destination, doc from charges order by id;
drop table charges;
alter table charges_with_rowid rename to charges;
create unique index charges_id on charges (tenant, id);
