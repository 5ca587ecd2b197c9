delete from card_versions where token = ?1
