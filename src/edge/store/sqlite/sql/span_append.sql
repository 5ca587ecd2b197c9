insert into log_spans (first, next, id_min, id_max) values (?1, ?2, ?3, ?4)
