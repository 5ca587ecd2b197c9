select number, doc from invoice_runs where tenant = ?1 and id = ?2
