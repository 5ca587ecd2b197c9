select s.body_mac from cards c join sealed s on s.id = c.sealed where c.token = ?1
