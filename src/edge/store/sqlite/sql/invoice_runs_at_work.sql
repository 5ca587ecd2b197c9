select doc from invoice_runs where at_work = 1 order by number
