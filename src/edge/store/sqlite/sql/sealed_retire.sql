update sealed
set sealed = ?2, body_mac = iif(body_mac is null, null, zeroblob(32)), salt = zeroblob(length(salt))
where id = ?1
