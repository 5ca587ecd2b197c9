update body_macs set mac = zeroblob(32) where id = ?1
