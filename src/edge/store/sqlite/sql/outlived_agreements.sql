select doc from agreements where (token, id) > (?1, ?2) order by token, id limit ?3
