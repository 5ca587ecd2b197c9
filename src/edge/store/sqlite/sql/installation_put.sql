insert into installation (only, doc) values (1, ?1)
