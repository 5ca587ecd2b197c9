select l.id, l.doc from invoice_run_lines l
where l.id >= ?1 and l.id < ?2 and l.verdict = 1 and not exists (select 1 from invoice_run_marks m where m.id = l.id)
