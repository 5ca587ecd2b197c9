delete from agreements where token = ?1 and id = ?2
