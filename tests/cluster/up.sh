#!/usr/bin/env bash
# One-machine SLURM for tests (Debian 12: slurm 22.05): a CPU node, two GPU nodes with counted GPUs, and a partition
# that preempts. No systemd; everything under $SLURM_ROOT but the two or three files in /etc/slurm. Run as root (mknod,
# mariadbd user).
#
#   needs:  apt-get install -y --no-install-recommends slurm-wlm munge          (plain)
#           apt-get install -y --no-install-recommends slurmdbd mariadb-server  (for "dbd")
#   usage:  up.sh [dbd]          dbd = also mariadbd + slurmdbd, so that sacct works
#           down.sh              stops it again; jobs still in it are cancelled
#   env:    SLURM_ROOT  default $TMPDIR/slurm-test
#           FRESH=0     keep queue and accounting from last time (default: start empty)
#
# Running it twice is safe: a test cluster that is still up is stopped first (its jobs are lost).
# Exit 0: every node idle (and, with dbd, sacctmgr answers). Exit 1: a line "up.sh: ..." says why not.
set -euo pipefail
die() { echo "up.sh: $*" >&2; exit 1; }

MODE="${1:-}"
ROOT="${SLURM_ROOT:-${TMPDIR:-/tmp}/slurm-test}"
HERE="$(cd "$(dirname "$0")" && pwd)"
ETC=/etc/slurm            # must be the compiled-in default: the jobstep plugin drops every SLURM_* variable, SLURM_CONF included
MARK="ClusterName=testcluster"
NODES="cpu1 gpu1 gpu2"
unset SLURM_CONF
PATH="$PATH:/usr/sbin:/sbin"

[ "$MODE" = "" ] || [ "$MODE" = dbd ] || die "unknown argument '$MODE' (usage: up.sh [dbd])"
[ "$(id -u)" = 0 ] || die "must run as root"
need="munged slurmctld slurmd sinfo sbatch"
[ "$MODE" = dbd ] && need="$need slurmdbd sacctmgr mariadbd mariadb-install-db mariadb"
missing=""
for c in $need; do command -v "$c" >/dev/null || missing="$missing $c"; done
[ -z "$missing" ] || die "not installed:$missing
  apt-get install -y --no-install-recommends slurm-wlm munge slurmdbd mariadb-server"
if [ -e "$ETC/slurm.conf" ] && ! grep -qx "$MARK" "$ETC/slurm.conf"; then
  die "$ETC/slurm.conf is another cluster's (it lacks $MARK); move it away first"
fi
[ -x "$HERE/down.sh" ] || die "down.sh is not beside up.sh"
SLURM_ROOT="$ROOT" "$HERE/down.sh" || die "the previous test cluster could not be stopped"
ports="16817 16821 16822 16823"
[ "$MODE" = dbd ] && ports="$ports 16819 16306"
for p in $ports; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then die "port $p is already in use"; fi
done

U=root
if [ "${FRESH:-1}" = 1 ]; then rm -rf "$ROOT"/{state,spool,mysql,log}; fi   # a drained/INVAL node survives restarts in state/
mkdir -p "$ETC" "$ROOT"/{etc,run,log,state,spool,dev}
chmod 755 "$ROOT" "$ROOT"/*/
H="$(hostname -s)"

# --- fake GPUs: slurmd wants a character device (a plain file is refused and CUDA_VISIBLE_DEVICES is then never set).
for i in 0 1 2 3; do [ -c "$ROOT/dev/nvidia$i" ] || mknod "$ROOT/dev/nvidia$i" c 1 3 || die "mknod failed"; done

cat > "$ETC/slurm.conf" <<CONF
$MARK
SlurmctldHost=$H(127.0.0.1)
SlurmctldPort=16817
SlurmUser=$U
SlurmdUser=$U
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=600
MaxArraySize=10001
MaxJobCount=100000
KillWait=5
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=10
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=cpu1 NodeAddr=127.0.0.1 NodeHostname=$H Port=16821 CPUs=8 RealMemory=16000 State=UNKNOWN
NodeName=gpu1 NodeAddr=127.0.0.1 NodeHostname=$H Port=16822 CPUs=8 RealMemory=16000 Gres=gpu:h100:1 State=UNKNOWN
NodeName=gpu2 NodeAddr=127.0.0.1 NodeHostname=$H Port=16823 CPUs=8 RealMemory=16000 Gres=gpu:a100:4 State=UNKNOWN
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=2-00:00:00 DefaultTime=00:10:00 State=UP PriorityTier=1
PartitionName=gpu Nodes=gpu1 MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP PriorityTier=1
PartitionName=gpuall Nodes=gpu1,gpu2 MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP PriorityTier=1
PartitionName=urgent Nodes=cpu1,gpu1 MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP PriorityTier=10
CONF
cat > "$ETC/gres.conf" <<CONF
NodeName=gpu1 Name=gpu Type=h100 File=$ROOT/dev/nvidia0
NodeName=gpu2 Name=gpu Type=a100 File=$ROOT/dev/nvidia[0-3]
CONF

# --- munge (own key and socket; does not touch /etc/munge) ---
if [ ! -s "$ROOT/etc/munge.key" ]; then
  ( umask 077; dd if=/dev/urandom of="$ROOT/etc/munge.key" bs=1 count=1024 status=none )
fi
chmod 700 "$ROOT/log" ; chmod 600 "$ROOT/etc/munge.key"
/usr/sbin/munged --force --key-file="$ROOT/etc/munge.key" --socket="$ROOT/run/munge.socket" \
  --pid-file="$ROOT/run/munged.pid" --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/state/munged.seed" || die "munged did not start, see $ROOT/log/munged.log"

# --- accounting (optional) ---
if [ "$MODE" = dbd ]; then
  if [ ! -d "$ROOT/mysql/mysql" ]; then
    mkdir -p "$ROOT/mysql"; chown mysql "$ROOT/mysql"
    mariadb-install-db --no-defaults --user=mysql --datadir="$ROOT/mysql" \
       --auth-root-authentication-method=normal --skip-test-db > "$ROOT/log/mysql-install.log" 2>&1 \
       || die "mariadb-install-db failed, see $ROOT/log/mysql-install.log"
  fi
  mkdir -p "$ROOT/run/mysql"; chown mysql "$ROOT/run/mysql"
  /usr/sbin/mariadbd --no-defaults --user=mysql --datadir="$ROOT/mysql" \
     --socket="$ROOT/run/mysql/mysqld.sock" --pid-file="$ROOT/run/mysql/mysqld.pid" --bind-address=127.0.0.1 --port=16306 \
     --innodb-buffer-pool-size=256M --innodb-lock-wait-timeout=900 --innodb-log-file-size=64M \
     > "$ROOT/log/mariadbd.log" 2>&1 &
  echo $! > "$ROOT/run/mariadbd.pid"
  ok=""
  for i in $(seq 60); do
    if mariadb --no-defaults -uroot -S "$ROOT/run/mysql/mysqld.sock" -e 'select 1' >/dev/null 2>&1; then ok=1; break; fi
    sleep 0.5
  done
  [ -n "$ok" ] || die "mariadbd does not answer after 30 s, see $ROOT/log/mariadbd.log"
  mariadb --no-defaults -uroot -S "$ROOT/run/mysql/mysqld.sock" -e "
    create database if not exists slurm_acct_db;
    create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm';
    create user if not exists 'slurm'@'localhost' identified by 'slurm';
    grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1'; grant all on slurm_acct_db.* to 'slurm'@'localhost';"
  ( umask 077; cat > "$ETC/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=$U
DebugLevel=info
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  )
  cat >> "$ETC/slurm.conf" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$ROOT/run/munge.socket
AccountingStorageTRES=gres/gpu
CONF
  /usr/sbin/slurmdbd || die "slurmdbd did not start, see $ROOT/log/slurmdbd.log"
  ok=""
  for i in $(seq 60); do
    if sacctmgr -n list cluster >/dev/null 2>&1; then ok=1; break; fi
    sleep 0.5
  done
  [ -n "$ok" ] || die "slurmdbd does not answer after 30 s, see $ROOT/log/slurmdbd.log"
  # each of these ends 1 with "Nothing new added" when FRESH=0 kept the last accounts, so the check comes after
  sacctmgr -i add cluster testcluster >/dev/null 2>&1 || true
  sacctmgr -i add account lab Description=lab Organization=lab >/dev/null 2>&1 || true
  sacctmgr -i add user "$U" Account=lab DefaultAccount=lab >/dev/null 2>&1 || true
  [ -n "$(sacctmgr -nP list assoc account=lab user="$U")" ] || die "account lab was not made, see $ROOT/log/slurmdbd.log"
fi

# --- the daemons ---
/usr/sbin/slurmctld || die "slurmctld did not start, see $ROOT/log/slurmctld.log"
for n in $NODES; do
  mkdir -p "$ROOT/spool/$n"
  /usr/sbin/slurmd -N "$n" || die "slurmd $n did not start, see $ROOT/log/slurmd.$n.log"
done
states=""
for i in $(seq 60); do
  states="$(sinfo -h -N -o '%T' 2>/dev/null | sort -u || true)"
  [ "$states" = idle ] && break
  sleep 0.5
done
sinfo -N -o '%N %T %c %m %G %P %E' || true
[ "$states" = idle ] || die "not every node is idle after 30 s (states: $(echo $states)), see $ROOT/log/"
if [ "$MODE" = dbd ]; then   # slurmctld must have registered with slurmdbd, else the first jobs reach sacct late
  ok=""
  for i in $(seq 60); do
    [ "$(sacctmgr -nP list cluster format=controlport)" = 16817 ] && { ok=1; break; }
    sleep 0.5
  done
  [ -n "$ok" ] || die "slurmctld did not register with slurmdbd after 30 s, see $ROOT/log/slurmctld.log"
fi
echo "up.sh: all nodes idle${MODE:+, accounting on (account lab)}"
