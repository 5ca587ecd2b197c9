insert into invoice_runs (tenant, id, at_work, doc) values (?1, ?2, ?3, ?4)
