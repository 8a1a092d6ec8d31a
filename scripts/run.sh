#!/usr/bin/env bash
# Run a script of this folder: run.sh [--log FILE] crops/crop_plate.py --flags. Rules start all commands so.
#   --log FILE         what it prints goes there too; whether FILE can be written decides nothing
#   HCSQC_ECHO         no: where there is a log, it goes there alone
#   HCSQC_PYTHON       the Python to run it by
#   HCSQC_NETWORKS     networks of one's own that files of encoders may ask for: module:function
#   HCSQC_HUB_OFFLINE  0 lets it open connections to the model hub; one local rule does
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
# Files of other libraries too, and what jobs print, whatever the locale.
export PYTHONUTF8=1
export HF_HUB_OFFLINE="${HCSQC_HUB_OFFLINE:-1}"

log=
if [ "$1" = --log ]; then
  log="$2"
  shift 2
fi
command=("${HCSQC_PYTHON:-python}" "$here/$1" "${@:2}")
[ -n "$log" ] || exec "${command[@]}"

# Outlives the job, whatever signal comes to both, and reads on where it cannot write: a job that prints never fails.
copy_to_log() {
  trap '' HUP INT PIPE TERM USR1 USR2
  if [ "${HCSQC_ECHO:-yes}" = no ]; then
    cat > "$log" || cat > /dev/null
  else
    tee -- "$log" || cat > /dev/null
  fi
}

set +e
exec 3> >(copy_to_log)
copier=${!:-}
# In the background, where a signal to this script alone can be passed on; that of Ctrl-C is not left out there.
(trap - INT QUIT; exec "${command[@]}") >&3 2>&1 3>&- <&0 &
job=$!
exec 3>&-
# The job ends in its own way, perhaps after it has saved, and this script with its status. A signal to all processes
# has reached it before; it then comes twice, which is harmless to a job that saves.
for signal in HUP TERM USR1 USR2; do
  # shellcheck disable=SC2064
  trap "sleep 1; kill -$signal $job 2> /dev/null" $signal
done
trap : INT
while :; do
  wait "$job"
  status=$?
  kill -0 "$job" 2> /dev/null || break
done
# bash before 4.4 cannot wait for it.
wait "$copier" 2> /dev/null
exit "$status"
