#!/bin/sh
# Write a backup of the database into a folder, and delete those older than BACKUPS_KEPT_DAYS (14):
#
#     DATABASE_DIRECT_URL=postgresql://social_posts_owner@… deploy/postgres/backup.sh /var/backups/social-posts
#
# The password comes from PGPASSWORD or ~/.pgpass. pg_dump must be of the server's version or newer.
# docs/operations.md says what a backup does not contain, and how to restore it.
set -eu
umask 077
folder=$1
file="$folder/social_posts-$(date -u +%Y-%m-%dT%H%M%SZ).dump"
# An interrupted backup keeps this name, so that it is not taken for a complete one.
trap 'rm -f "$file.partial"' EXIT
pg_dump --format=custom --no-owner --no-privileges --file "$file.partial" \
    "${DATABASE_DIRECT_URL:?set it to the address of the owner, without its password}"
pg_restore --list "$file.partial" > /dev/null
sync "$file.partial"
mv "$file.partial" "$file"
find "$folder" -maxdepth 1 -name 'social_posts-*.dump' -mtime "+${BACKUPS_KEPT_DAYS:-14}" -delete
echo "backup written: $file"
