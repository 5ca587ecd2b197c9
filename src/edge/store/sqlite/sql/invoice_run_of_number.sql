select id from invoice_runs where number = ?1
