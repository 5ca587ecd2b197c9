insert into body_macs (mac) values (?1)
