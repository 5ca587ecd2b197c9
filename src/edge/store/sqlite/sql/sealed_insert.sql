insert into sealed (sealed, mark, body_mac, salt, mark_key) values (?1, ?2, ?3, ?4, ?5)
