insert into forward_answers (answer) values (?1)
