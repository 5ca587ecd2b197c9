insert into invoice_run_marks (id, charge, refused) values (?1, ?2, ?3)
