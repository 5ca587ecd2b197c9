select charge from invoice_run_marks where id = ?1
