insert into answers (answer) values (?1)
