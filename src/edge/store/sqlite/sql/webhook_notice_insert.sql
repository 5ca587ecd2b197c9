insert into webhook_notices (tenant, id, created, kind, body) values (?1, ?2, ?3, ?4, ?5)
