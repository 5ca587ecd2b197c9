insert into sealed (sealed, mark, body_mac) values (?1, ?2, ?3)
