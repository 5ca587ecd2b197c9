select mark, body_mac, salt from sealed where id = ?1
