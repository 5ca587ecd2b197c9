update answers set answer = ?2 where id = ?1
