select doc from invoice_run_lines where id = ?1
