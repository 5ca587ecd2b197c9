insert into cards (token, tenant, status, version, flags, sealed, created, updated, details)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
