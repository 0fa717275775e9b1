#!/usr/bin/env bash
# Deploy HEAD to the Heroku app HEROKU_APP_NAME with HEROKU_API_KEY, and fail unless the release succeeded.
#
# Without either variable it does nothing, because a fork or a new repository has no app.
# The push is never forced, so an older commit cannot replace a newer one.
set -euo pipefail

api_url=${HEROKU_API_URL:-https://api.heroku.com}
attempts=60
pause_seconds=5

if [[ -z ${HEROKU_API_KEY:-} || -z ${HEROKU_APP_NAME:-} ]]; then
  echo "::notice title=Not deployed::HEROKU_API_KEY and HEROKU_APP_NAME are not both set."
  exit 0
fi
if [[ ! $HEROKU_APP_NAME =~ ^[a-z][a-z0-9-]{1,28}[a-z0-9]$ ]]; then
  echo "::error title=Not deployed::HEROKU_APP_NAME is not the name of a Heroku app."
  exit 1
fi

# Both clients get the key through a pipe, because the process list shows arguments.
# shellcheck disable=SC2016 # git's own shell expands the key.
git -c credential.helper= \
  -c credential.helper='!printf "username=_\npassword=%s\n" "$HEROKU_API_KEY" #' \
  push "https://git.heroku.com/$HEROKU_APP_NAME.git" HEAD:refs/heads/main

# The push succeeds even if the release phase (the migrations) fails, so check the status of the last release.
for ((attempt = 1; attempt <= attempts; attempt++)); do
  status=$(
    curl --fail --silent --show-error --retry 3 \
      --header 'Accept: application/vnd.heroku+json; version=3' \
      --header 'Range: version ..; order=desc,max=1' \
      --header @<(printf 'Authorization: Bearer %s' "$HEROKU_API_KEY") \
      "$api_url/apps/$HEROKU_APP_NAME/releases" |
      python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["status"])'
  )
  case $status in
    succeeded)
      echo "Released."
      exit 0
      ;;
    pending) sleep "$pause_seconds" ;;
    *)
      echo "::error title=Release failed::Heroku says $status; the previous release keeps running."
      exit 1
      ;;
  esac
done
echo "::error title=Release unknown::Heroku had not finished the release after $((attempts * pause_seconds)) seconds."
exit 1
