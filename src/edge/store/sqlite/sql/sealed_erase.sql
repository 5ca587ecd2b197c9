update sealed
set sealed = zeroblob(length(sealed)), mark = zeroblob(length(mark)), body_mac = iif(body_mac is null, null, zeroblob(32)),
    salt = zeroblob(length(salt))
where id = ?1
