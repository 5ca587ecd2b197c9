select reference, since from legal_holds where token = ?1 order by reference
