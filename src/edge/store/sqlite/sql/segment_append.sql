insert into log_segments (first, count, id_min, id_max, heads, leaves) values (?1, ?2, ?3, ?4, ?5, ?6)
