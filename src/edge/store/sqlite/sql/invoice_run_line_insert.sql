insert into invoice_run_lines (id, verdict, other, doc) values (?1, ?2, ?3, ?4)
