update forward_answers set answer = zeroblob(length(answer)) where id in (select answer from forwards where token = ?1)
