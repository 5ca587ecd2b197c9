select mark, body_mac, salt, mark_key from sealed where id = ?1
