select mac from body_macs where id = ?1
