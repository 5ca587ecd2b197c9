delete from network_declines where fingerprint = ?1
