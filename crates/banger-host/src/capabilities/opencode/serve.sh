# Runs the opencode server of the guest, and starts it again when it ends. The password is in the
# environment. The output is in a file of /run, which no image contains: opencode may print it.
umask 077
output=$(readlink /proc/$$/fd/1)
folder=/run/opencode
mkdir -p "$folder"
if [ -e "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; then exit 0; fi
echo $$ >"$folder/pid"
exec >"$folder/log" 2>&1
# The file for the output of a command without a client stays empty.
case $output in /var/log/banger/*.log) rm -f "$output" ;; esac
cd /root || cd /
now() {
    read -r uptime _ </proc/uptime
    echo "${uptime%%.*}"
}
# Version 2 looks for a newer one every ten minutes, and installs it: this one is the image's.
export OPENCODE_DISABLE_AUTOUPDATE="${OPENCODE_DISABLE_AUTOUPDATE-true}"
delay=1
while :; do
    began=$(now)
    opencode serve --hostname 0.0.0.0 --port 4096
    code=$?
    # Not found: it has been removed since the image was made.
    if [ "$code" = 127 ]; then exit 127; fi
    if [ $(($(now) - began)) -ge 60 ]; then delay=1; fi
    echo "opencode ended with exit code $code, and is started again in $delay s"
    sleep "$delay"
    if [ "$delay" -lt 60 ]; then delay=$((delay * 2)); fi
done
