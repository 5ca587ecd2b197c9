insert into webhook_endpoints (tenant, id, doc) values (?1, ?2, ?3)
