"""The HTTP server: processes, sockets and the HTTP protocol."""
