update invoice_runs set at_work = ?3, doc = ?4 where tenant = ?1 and id = ?2
