insert into charges (tenant, id, created, status, destination, doc) values (?1, ?2, ?3, ?4, ?5, ?6)
