insert into answers (answer) values (zeroblob(?1))
