#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-7%8
#SBATCH --comment='fsr 1a2b3c4d'
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=4
#SBATCH --error=/dev/null
#SBATCH --exclude=n1,n7
#SBATCH --gpus-per-node=4
#SBATCH --job-name=fsr-mask_ratio-1a2b3c4d
#SBATCH --mem=64G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation=mine
#SBATCH --signal=B:USR2@120
#SBATCH --time=12:00:00

# setup
# Signals are remembered from the first line on: nobody else may be there to see them.
signals=
for name in TERM INT HUP; do trap "signals+=' $name'" $name; done
trap 'signals+=" USR2"; pass_on &' USR2
# Again and again, because ranks that srun is just starting get no signal.
pass_on() { while kill -USR2 "$ranks" 2>/dev/null; do sleep 10; done; }
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
stay_ended() {
  [ "${SLURM_RESTART_COUNT:-0}" = 0 ] && [ -z "$known$signals" ] && return
  scontrol show job -o $job | grep -q " Restarts=${SLURM_RESTART_COUNT:-0} " &&
    scontrol update jobid=$job requeue=0
}
trap stay_ended EXIT
mistake() {
  echo "error: node $SLURMD_NODENAME $1" >&2
  excluded=$(scontrol show job -o $job | sed -n 's/.* ExcNodeList=\([^ ]*\).*/\1/p')
  excluded=${excluded#(null)}
  if [ "$excluded" = n1,n7 ] &&
    sinfo -hNo %N -p "$SLURM_JOB_PARTITION" | grep -qvxF "$SLURMD_NODENAME" && scontrol requeue $job; then
    [ -d '/shared/my runs/mask_ratio' ] && mkdir -p '/shared/my runs/mask_ratio/locks/bad_nodes'/"$SLURMD_NODENAME" && : >'/shared/my runs/mask_ratio/locks/bad_nodes'/"$SLURMD_NODENAME"/lacks
    # Until Slurm, which requeues it, kills the job.
    while :; do
      sleep 1; scontrol update jobid=$job excnodelist="${excluded:+$excluded,}$SLURMD_NODENAME"
    done
  fi
  [ -d '/shared/my runs/mask_ratio' ] && rm -f '/shared/my runs/mask_ratio/locks/bad_nodes'/*/lacks && mkdir -p '/shared/my runs/mask_ratio/mistakes' &&
    printf "node %s %s" "$SLURMD_NODENAME" "$1" >'/shared/my runs/mask_ratio/mistakes'/"$SLURM_JOB_ID"
  exit 2
}
cd '/shared/my runs/mask_ratio/code/0123456789ab' 2>/dev/null || mistake 'cannot enter /shared/my runs/mask_ratio/code/0123456789ab; the runs folder and the Python environment must be on a file system that all nodes share'
log='/shared/my runs/mask_ratio/slurm'/${job}_0_log
exec >>"$log.out" 2>>"$log.err" || mistake 'cannot write to /shared/my runs/mask_ratio/slurm; the runs folder and the Python environment must be on a file system that all nodes share'
[ -x /venv/bin/python ] || mistake 'has no /venv/bin/python; the runs folder and the Python environment must be on a file system that all nodes share'
export PYTHONPATH=$PWD
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export FSR_GPUS=4
start_ranks() {

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/shared/my runs/mask_ratio/slurm/%A_%a_%t_log.out' --error '/shared/my runs/mask_ratio/slurm/%A_%a_%t_log.err' --kill-on-bad-exit=1 /venv/bin/python -u -m launch.worker.main '/shared/my runs/mask_ratio/slurm/submission_0001.json' & ranks=$!


# teardown
}
start=1 known=
while :; do
  code=0 started=$(date +%s) known=$signals
  if [ -z "$signals" ]; then
    (trap "" TERM INT HUP USR1 USR2; exec /venv/bin/python -m launch.worker.watchdog '/shared/my runs/mask_ratio/locks' $((start - 1))) &
    watchdog=$!
    start_ranks
    # A signal ends the waiting, not the ranks.
    while wait "$ranks"; code=$?; [ "$known" != "$signals" ]; do known=$signals; done
    { kill -KILL $watchdog; wait $watchdog; } 2>/dev/null
    [ $code = 0 ] && exit 0
  fi
  (trap "" TERM INT HUP USR2; exec /venv/bin/python -m launch.worker.after_crash '/shared/my runs/mask_ratio/slurm/submission_0001.json' "$code" "$started" "$start" $known)
  case $? in
    75) ;;
    0) exit 1 ;;
    2) exit 2 ;;
    *) mistake 'cannot run the study'"'"'s code with /venv/bin/python, or its snapshot is not whole'": $(tail -n 1 "$log.err"); "'the runs folder and the Python environment must be on a file system that all nodes share, and --renew_code takes a new snapshot' ;;
  esac
  signals=${signals#"$known"}
  [ $code = 0 ] || ((start++))
done