delete from legal_holds where token = ?1 and reference = ?2
