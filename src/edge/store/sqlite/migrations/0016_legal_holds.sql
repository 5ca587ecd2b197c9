-- The holds of a card by the caller's references, such as a case's number: it is held while there is one. An empty reference is a hold
-- without one. `since`: when it was set, null if that was before there were references.
create table legal_holds (
    token     blob not null,
    reference text not null,
    since     integer,
    primary key (token, reference)
) without rowid;
insert into legal_holds (token, reference) select token, '' from cards where flags & 1 = 1;
