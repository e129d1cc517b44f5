"""What lets fewer workers run at once than wait in the queue, and for how long each may run: pure functions of rows
that Slurm's accounts and partitions tell. What keeps jobs out of the queue is told by `answers.submit_limits`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from launch.slurm.sbatch_options import seconds

MOST_TASKS = 5000  # of an array, which has a folder for two logs of each

Row = Mapping[str, str]
Resources = Mapping[str, int]
"""What a worker takes, by Slurm's names: cpu, gres/gpu, perhaps gres/gpu:a100."""

ASSOCIATION = ("User", "Partition", "DefaultQOS", "MaxJobs", "GrpJobs", "GrpTRES", "MaxTRES", "MaxWall")
ACCOUNT = ("Account", "ParentName", "GrpSubmitJobs", "GrpJobs", "GrpTRES")
QOS = ("Name", "MaxJobsPU", "MaxTRESPU", "MaxJobsPA", "MaxTRESPA", "GrpJobs", "GrpTRES", "MaxTRES", "MaxWall")


@dataclass(frozen=True)
class Ceiling:
    """One thing that lets no more than so many workers run at once."""

    workers: int
    words: str
    """What it is, with its value and Slurm's name for it."""


@dataclass(frozen=True)
class Duration:
    """One thing that ends a job after some time."""

    limit: str
    """As Slurm writes it."""
    words: str


@dataclass(frozen=True)
class Told:
    """What Slurm tells of an account's user; without accounts nothing."""

    user: str = ""
    account: str = ""
    associations: Sequence[Row] = ()
    """Rows of ASSOCIATION of the account."""
    accounts: Sequence[Row] = ()
    """Rows of ACCOUNT of all accounts that this user may see."""
    qos: Sequence[Row] = ()
    """Rows of QOS."""
    partitions: Mapping[str, Row] = field(default_factory=dict)
    """Every partition's settings by name."""

    def rules(self, partition: str | None, qos: str | None) -> "Rules":
        """Those of them that hold for jobs of a partition (or several, or the default one) and a QOS (or his own)."""
        names = asked(partition, self.partitions)
        own = [row for row in self.associations if row["User"] == self.user and row["Partition"] in ("", *names)]
        association: Row = max(own, key=lambda row: bool(row["Partition"]), default={})
        by_name = {row["Name"]: row for row in self.qos}
        of_partitions = (self.partitions[name].get("QoS", "N/A") for name in names)
        wanted = dict.fromkeys([*of_partitions, qos or association.get("DefaultQOS") or "normal"])
        return Rules(
            association,
            [*above(self.account, self.accounts)],
            [by_name[name] for name in wanted if name in by_name],
            {name: self.partitions[name] for name in names},
            self.account,
        )


@dataclass(frozen=True)
class Rules:
    """The rows that hold for some jobs, those that go before others first."""

    association: Row
    accounts: Sequence[Row]
    """The account and those above it."""
    qos: Sequence[Row]
    partitions: Mapping[str, Row]
    account: str

    def ceilings(self, worker: Resources) -> list[Ceiling]:
        """What lets no more workers run at once than it says, the lowest first.

        A QOS's limit goes before one of the same kind of another QOS or of associations, as in Slurm.
        """
        found: dict[tuple[str, str], Ceiling] = {}
        for kind, whose, column, text in self._limits():
            for what, limit in limits_in(text):
                each = 1 if what == "jobs" else worker.get(what, 0)
                if each:
                    per_worker = f", {each} a worker" if each > 1 else ""
                    words = f"{limit} {what} {whose}{per_worker} ({column})"
                    found.setdefault((kind, what), Ceiling(limit // each, words))
        return sorted(found.values(), key=lambda ceiling: ceiling.workers)

    def durations(self, asked: str | None) -> list[Duration]:
        """What ends a job, the soonest first; `asked` is the time limit that it asks for."""
        found = [Duration(asked, "asked for")] if asked else []
        for name, row in self.partitions.items():
            default, most = row.get("DefaultTime", "NONE"), row.get("MaxTime", "UNLIMITED")
            if not asked and default not in ("NONE", ""):
                found.append(Duration(default, f"DefaultTime of partition {name}"))
            found.append(Duration(most, f"MaxTime of partition {name}"))
        found += [Duration(row.get("MaxWall", ""), f"MaxWall of QOS {row['Name']}") for row in self.qos]
        found.append(Duration(self.association.get("MaxWall", ""), f"MaxWall of your account {self.account}"))
        limited = [one for one in found if one.limit[:1].isdigit()]
        return sorted(limited, key=lambda one: seconds(one.limit))

    def _limits(self) -> Iterator[tuple[str, str, str, str]]:
        """Kind, whose it is, Slurm's name and text of each limit. Of the same kind the first counts."""
        for row in self.qos:
            where = f"in QOS {row['Name']}"
            for column, kind, whose in (
                ("MaxTRES", "job", "a job"),
                ("MaxJobsPU", "user", "of you"),
                ("MaxTRESPU", "user", "of you"),
                ("MaxJobsPA", "account", f"of account {self.account}"),
                ("MaxTRESPA", "account", f"of account {self.account}"),
                ("GrpJobs", "group", "of all users together"),
                ("GrpTRES", "group", "of all users together"),
            ):
                yield kind, f"{whose} {where}", column, row.get(column, "")
        for column, kind in (("MaxTRES", "job"), ("MaxJobs", "user"), ("GrpJobs", "own"), ("GrpTRES", "own")):
            yield kind, f"of your account {self.account}", column, self.association.get(column, "")
        for row in self.accounts:
            for column in ("GrpJobs", "GrpTRES"):
                yield row["Account"], f"of all users of account {row['Account']} together", column, row.get(column, "")
        total: dict[str, int] = {}
        for row in self.partitions.values():
            for what, number in limits_in(row.get("TRES", "")):
                total[what] = total.get(what, 0) + number
        names = ", ".join(self.partitions)
        yield "", f"in partition {names}", "TRES", ",".join(f"{what}={number}" for what, number in total.items())


def array_size(settings: Mapping[str, str]) -> tuple[int, str] | None:
    """Most tasks of an array, and Slurm's name for what says so; None if the settings do not tell."""
    if not settings.get("MaxArraySize", "").isdigit():
        return None
    found = [(int(settings["MaxArraySize"]), "MaxArraySize"), (MOST_TASKS, "their logs share a folder")]
    fewer = re.search(r"\bmax_array_tasks=(\d+)", settings.get("SchedulerParameters", ""))
    return min([*found, *([(int(fewer[1]), "max_array_tasks of SchedulerParameters")] if fewer else [])])


def asked(partition: str | None, partitions: Mapping[str, Row]) -> list[str]:
    """Names of the partitions that a job may run in; the cluster's default one where none is asked for."""
    if partition:
        return [name for name in partition.split(",") if name in partitions]
    return [name for name, row in partitions.items() if row.get("Default") == "YES"]


def above(account: str, accounts: Sequence[Row]) -> Iterator[Row]:
    """The row of an account and those of the accounts above it, as far as they are told."""
    by_name, seen = {row["Account"]: row for row in accounts}, set[str]()
    while account in by_name and account not in seen:
        seen.add(account)
        yield by_name[account]
        account = by_name[account]["ParentName"]


def below(account: str, accounts: Sequence[Row]) -> list[str]:
    """Names of an account and of all accounts below it."""
    names = [account]
    for name in names:  # which grows
        names += [row["Account"] for row in accounts if row["ParentName"] == name and row["Account"] not in names]
    return names


def limits_in(text: str) -> list[tuple[str, int]]:
    """What is limited, and to how much: `5` is a number of jobs, `cpu=64,gres/gpu=8` are resources."""
    if text.isdigit():
        return [("jobs", int(text))]
    return [(what, int(number)) for what, number in re.findall(r"([\w/:.-]+)=(\d+)(?=,|$)", text)]
