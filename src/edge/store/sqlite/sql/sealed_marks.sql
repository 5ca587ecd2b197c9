select mark, body_mac from sealed where id = ?1
