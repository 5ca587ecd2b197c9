update invoice_run_marks set charge = ?2 where id = ?1
