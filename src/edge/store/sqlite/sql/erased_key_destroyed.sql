update erased_keys set destroyed = ?2 where key = ?1
