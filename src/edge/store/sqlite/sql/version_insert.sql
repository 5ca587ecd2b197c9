insert into card_versions (token, version, sealed, created, updated, details) values (?1, ?2, ?3, ?4, ?5, ?6)
