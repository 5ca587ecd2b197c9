select version, sealed from card_versions where token = ?1
