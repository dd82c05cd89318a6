"""What people see in a browser: one page, made on the server."""
