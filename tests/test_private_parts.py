"""What we use of others' private parts, each behind one function. When a new version changes one, this says which."""

import inspect

import submitit

from launch.slurm import batch_script

ARGUMENTS = (
    *("command", "folder", "job_name", "partition", "account", "qos", "constraint", "exclude", "nodes"),
    *("ntasks_per_node", "cpus_per_task", "comment", "wckey", "signal_delay_s", "map_count"),
    *("array_parallelism", "additional_parameters", "srun_args", "setup", "teardown"),
)


def test_submitit_still_makes_a_batch_script_from_what_we_give_it():
    change = f"submitit {submitit.__version__} changed its private _make_sbatch_string: mend batch_script.py"
    assert hasattr(submitit.slurm.slurm, "_make_sbatch_string"), change
    given, known = set(ARGUMENTS), set(inspect.signature(submitit.slurm.slurm._make_sbatch_string).parameters)
    assert given <= known, f"{change}; it does not know {sorted(given - known)} any more"
    source = inspect.getsource(batch_script.script)
    assert all(f"{name}=" in source for name in given), "this test and batch_script.py name different arguments"
