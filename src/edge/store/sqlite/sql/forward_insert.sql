insert into forwards (id, tenant, token, open, answer, doc) values (?1, ?2, ?3, ?4, ?5, ?6)
