select count(*) from agreements where token = ?1
