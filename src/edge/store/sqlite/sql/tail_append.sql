insert into tail (seq, batch) values (?1, ?2)
