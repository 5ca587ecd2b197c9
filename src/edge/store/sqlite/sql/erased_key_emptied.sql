update erased_keys set emptied = ?2 where key = ?1 and destroyed is null
