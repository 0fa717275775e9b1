"""Other ways to write the same API: one file for each style, the best that the style can do, on the same tables.

Where a style checks the token and the session as this application does, it uses the application's own
`app.security.access_tokens.verify` (python-jose, verified tokens remembered), so that no difference comes from there.
"""
