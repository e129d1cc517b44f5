"""Which jobs in the queue are workers: Slurm's states and reasons, of versions 20.11 to 25.05."""

import pytest

from launch.slurm import job_reasons
from launch.slurm.answers import QueuedJob
from launch.slurm.job_reasons import Outlook, outlook, remedies, stuck, summary, workers

WORKS = """
None Priority Resources Dependency BeginTime Licenses Reservation Cleaning Prolog JobArrayTaskLimit Reserved
QOSMaxJobsPerUserLimit QOSMaxCpuPerUserLimit QOSMaxGRESPerUser QOSGrpCpuLimit QOSGrpJobsLimit QOSUsageThreshold
QOSMaxNodePerUserLimit QOSMaxSubmitJobPerUserLimit MaxJobsPerAccount MaxGRESPerAccount QOSJobLimit QOSResourceLimit
AssocGrpGRES AssocGrpCPUMinutesLimit AssocGrpBillingRunMinutes AssocMaxJobsLimit AssocGrpJobsLimit AssociationJobLimit
PartitionDown PartitionInactive NodeDown FrontEndDown PowerNotAvail BurstBufferResources BurstBufferStageIn
ReqNodeNotAvail,_UnavailableNodes:n[1-4] ReqNodeNotAvail,_May_be_reserved_for_other_job FedJobLock
Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions
"""
RELEASE = """
JobHeldUser JobHoldMaxRequeue launch_failed_requeued_held job_requeued_in_held_state ReservationDeleted
BurstBufferOperation
"""
NEVER = """
DependencyNeverSatisfied BadConstraints PartitionTimeLimit PartitionNodeLimit PartitionConfig InvalidAccount
InvalidQOS AccountNotAllowed QOSNotAllowed MaxMemPerLimit DeadLine QOSMaxCpuPerJobLimit QOSMaxWallDurationPerJobLimit
QOSMaxGRESPerJob QOSMaxNodePerJobLimit QOSMaxMemoryPerNode QOSMinCpuNotSatisfied QOSMinGRES AssocMaxCpuPerJobLimit
AssocMaxWallDurationPerJobLimit AssocMaxGRESPerJob AssocMaxCpuMinutesPerJobLimit QOSMaxCpuMinutesPerJobLimit
AssocMaxNodePerJobLimit
"""


@pytest.mark.parametrize(
    "reasons, found",
    [
        (WORKS.split(), Outlook.WORKS),
        (RELEASE.split(), Outlook.RELEASE),
        (["launch failed requeued held"], Outlook.RELEASE),  # with blanks before 21.08
        (["JobHeldAdmin"], Outlook.ASK),
        (NEVER.split(), Outlook.NEVER),
    ],
)
def test_what_becomes_of_a_job_that_waits(reasons, found):
    assert {reason: outlook(QueuedJob("PENDING", reason)) for reason in reasons} == dict.fromkeys(reasons, found)


@pytest.mark.parametrize(
    "states, found",
    [
        (
            "RUNNING CONFIGURING SUSPENDED SIGNALING RESIZING REQUEUED REQUEUE_FED EXPEDITING A_LATER_STATE",
            Outlook.WORKS,
        ),
        (
            "COMPLETING STAGE_OUT CANCELLED FAILED COMPLETED TIMEOUT NODE_FAIL PREEMPTED REVOKED LAUNCH_FAILED",
            Outlook.ENDS,
        ),
        ("REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD", Outlook.RELEASE),
        ("STOPPED", Outlook.CONTINUE),
    ],
)
def test_what_becomes_of_a_job_in_another_state(states, found):
    for state in states.split():
        assert outlook(QueuedJob(state, "None")) is found, state
        assert outlook(QueuedJob(state, "JobHeldUser")) is found, state  # a reason of an earlier wait


JOBS = {
    "12_0": QueuedJob("RUNNING"),
    "12_1": QueuedJob("PENDING", "Priority"),
    "12_2": QueuedJob("PENDING", "Priority"),
    "12_3": QueuedJob("PENDING", "JobHeldUser"),
    "12_4": QueuedJob("PENDING", "JobHeldUser"),
    "9_0": QueuedJob("PENDING", "DependencyNeverSatisfied"),
    "8_0": QueuedJob("COMPLETING"),
}


def test_jobs_that_cannot_work_are_no_workers_and_are_named_with_what_mends_them():
    assert list(workers(JOBS)) == ["12_0", "12_1", "12_2"]
    assert list(stuck(JOBS)) == ["12_3", "12_4", "9_0"]
    assert remedies(JOBS) == [
        "jobs 12_3, 12_4 cannot work by themselves, pending (JobHeldUser): "
        "scontrol release 12_3,12_4, or scancel 12_3 12_4",
        "job 9_0 cannot work by itself, pending (DependencyNeverSatisfied): "
        "scancel 9_0, and ask for what the cluster can give",
    ]
    assert remedies(workers(JOBS)) == []


def test_the_queue_in_one_line():
    counted = (
        "1 completing, 1 pending (DependencyNeverSatisfied), 2 pending (JobHeldUser), 2 pending (Priority), 1 running"
    )
    assert summary(JOBS) == counted
    assert summary({}) == "no worker"


def test_every_outlook_that_needs_somebody_has_a_remedy():
    for found in Outlook:
        assert (job_reasons.remedy(found, ["1"]) is None) == (found in (Outlook.WORKS, Outlook.ENDS))
