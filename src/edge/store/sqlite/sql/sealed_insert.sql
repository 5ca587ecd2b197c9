insert into sealed (sealed, mark, body_mac, salt) values (?1, ?2, ?3, ?4)
