error: url: it holds a password, which would be shown with it; write postgres://user@host:port/database, and the password in password
