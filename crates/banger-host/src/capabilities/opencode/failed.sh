# Succeeds if the program of serve.sh has ended, or the server three times.
cd /run/opencode 2>/dev/null && [ -s pid ] || exit 1
kill -0 "$(cat pid)" 2>/dev/null || exit 0
[ "$(grep -c '^opencode ended with exit code' log)" -ge 3 ]
