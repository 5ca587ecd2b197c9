insert into events (seq, id, tenant, leaf) values (?1, ?2, ?3, ?4)
