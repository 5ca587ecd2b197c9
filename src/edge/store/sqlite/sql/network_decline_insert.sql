insert into network_declines (fingerprint, destination, by_merchant, attempt, at, bar) values (?1, ?2, ?3, ?4, ?5, ?6)
