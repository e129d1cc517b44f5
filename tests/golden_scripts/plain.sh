#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --comment='fsr 1a2b3c4d'
#SBATCH --cpus-per-task=4
#SBATCH --error='/shared/my runs/mask_ratio/slurm/%A_%a_0_log.err'
#SBATCH --job-name=fsr-mask_ratio-1a2b3c4d
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/shared/my runs/mask_ratio/slurm/%A_%a_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@120

# setup
mistake() {
  echo "error: node $SLURMD_NODENAME $1" >&2
  mkdir -p '/shared/my runs/mask_ratio/mistakes' 2>/dev/null &&
    printf "node %s %s" "$SLURMD_NODENAME" "$1" >'/shared/my runs/mask_ratio/mistakes'/"$SLURM_JOB_ID"
  exit 2
}
cd '/shared/my runs/mask_ratio/code/0123456789ab' 2>/dev/null || mistake 'cannot enter /shared/my runs/mask_ratio/code/0123456789ab; the runs folder and the Python environment must be on a file system that all nodes share'
[ -x /venv/bin/python ] || mistake 'has no /venv/bin/python; the runs folder and the Python environment must be on a file system that all nodes share'
export PYTHONPATH=$PWD
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export FSR_GPUS=0
start_ranks() {

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/shared/my runs/mask_ratio/slurm/%A_%a_%t_log.out' --error '/shared/my runs/mask_ratio/slurm/%A_%a_%t_log.err' --kill-on-bad-exit=1 /venv/bin/python -u -m launch.worker.main '/shared/my runs/mask_ratio/slurm/submission_0001.json'


# teardown
}
for ((start = 1; ; start++)); do
  started=$(date +%s)
  (trap '' TERM INT HUP USR1 USR2; exec /venv/bin/python -m launch.worker.watchdog '/shared/my runs/mask_ratio/locks' $((start - 1))) &
  watchdog=$!
  start_ranks; code=$?
  { kill -KILL $watchdog; wait $watchdog; } 2>/dev/null
  [ $code = 0 ] && exit 0
  /venv/bin/python -m launch.worker.after_crash '/shared/my runs/mask_ratio/slurm/submission_0001.json' "$code" "$started" "$start" || exit 1
done