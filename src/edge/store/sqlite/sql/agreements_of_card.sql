select doc from agreements where token = ?1 order by id
