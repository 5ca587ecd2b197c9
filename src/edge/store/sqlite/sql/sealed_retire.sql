update sealed
set sealed = ?2, mark = zeroblob(length(mark)), mark_key = null, body_mac = iif(body_mac is null, null, zeroblob(32)), salt = zeroblob(length(salt))
where id = ?1
