select attempt, at, bar from network_declines where fingerprint = ?1 and destination = ?2 and by_merchant = ?3 order by at
