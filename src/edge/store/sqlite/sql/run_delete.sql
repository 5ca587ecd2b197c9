delete from index_runs where run = ?1
