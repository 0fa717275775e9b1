"""Peers: the same API in other styles, one file per style, each as fast as the style allows, on the same tables.

Peers that check token and session use `app.security.access_tokens.verify` (python-jose with a cache of verified
tokens), so that token verification makes no difference.
"""
