"""The sentence a study's page begins with, and the command that it advises: by what its trials came to."""

import math

import pandas as pd
import pytest
from scipy import stats

from analysis.again import next_line
from analysis.intervals import half_width, seeds_needed
from analysis.tables import COLUMNS, Tables
from analysis.verdict import judge
from launch.state.paths import StudyFolder

METRIC = "val/seg_miou"
DEFINITION = {
    "metric": METRIC,
    "base": {"mask_ratio": 0.4, "w_aff": 0.2, "decoder": "small"},
    "space": {"mask_ratio": {}},
}


def trial(number, score=None, state="complete", setting=None, seed=0, error=None, damage=None, code="", **params):
    row = dict.fromkeys(COLUMNS["trials"]) | {"study": "s", "trial": number, "state": state, "seed": seed, "code": code}
    row |= {"setting": number if setting is None else setting, "error": error, "damage": damage, METRIC: score}
    return row | {f"param/{name}": value for name, value in params.items()}


def study(*trials):
    columns = ["study", *COLUMNS["trials"], METRIC]
    rows = pd.DataFrame(trials, columns=list(dict.fromkeys([*columns, *(name for row in trials for name in row)])))
    return Tables(trials=rows, **{name: pd.DataFrame(columns=["study", *COLUMNS[name]]) for name in [*COLUMNS][1:]})


def verdict(*trials, target=None, **changes):
    return judge(study(*trials), "s", DEFINITION | changes, target)


def search(*scores, ratios=(0.4, 0.6, 0.8, 0.2)):
    return [trial(n, score, mask_ratio=ratios[n]) for n, score in enumerate(scores)]


def repeats(setting, ratio, scores, first=10, seeds=None):
    """A setting's repeats, with seeds from 1 on."""
    seeds = seeds or range(1, len(scores) + 1)
    pairs = zip(scores, seeds, strict=True)
    return [
        trial(first + n, score, setting=setting, seed=seed, mask_ratio=ratio) for n, (score, seed) in enumerate(pairs)
    ]


def test_a_setting_that_is_better_is_named_with_its_interval_and_nothing_is_left_to_do():
    differences = [0.05, 0.06, 0.055, 0.047]
    ours = repeats(0, 0.4, [0.3, 0.4, 0.35, 0.32])
    theirs = repeats(1, 0.6, [0.35, 0.46, 0.405, 0.367], 20)
    found = verdict(*search(0.3, 0.5), *ours, *theirs)
    width = half_width(differences)
    assert found.kind == "better"
    text = f"Trial 1 (mask_ratio 0.6) beats the preset by 0.053 ± {width:.3f} segmentation mIoU over 4 seeds."
    assert found.finding == text
    assert found.next is None and "can be taken" in found.why


def test_a_setting_that_is_worse_keeps_the_preset():
    found = verdict(*search(0.3, 0.5), *repeats(0, 0.4, [0.3, 0.4, 0.35]), *repeats(1, 0.6, [0.2, 0.31, 0.24], 20))
    assert found.kind == "worse"
    assert found.finding.startswith("The preset beats trial 1 (mask_ratio 0.6): by 0.100 ± ")
    assert found.next is None and found.why == "keep the preset"


def test_a_larger_difference_that_is_not_sure_does_not_hide_a_smaller_one_that_is():
    sure, unsure = repeats(1, 0.6, [0.35, 0.45, 0.402], 20), repeats(2, 0.8, [0.1, 0.9, 0.6], 30)
    found = verdict(*search(0.3, 0.5, 0.45), *repeats(0, 0.4, [0.3, 0.4, 0.35]), *sure, *unsure)
    assert found.kind == "better" and found.finding.startswith("Trial 1 (mask_ratio 0.6) beats the preset by 0.051")
    assert found.limits[0] == "The other repeated setting, trial 2 (mask_ratio 0.8), is not significant."


def test_one_parameter_without_an_effect_is_said_of_the_parameter_with_the_widest_interval():
    others = [*repeats(1, 0.6, [0.31, 0.39, 0.36], 20), *repeats(2, 0.8, [0.33, 0.38, 0.34], 30)]
    found = verdict(*search(0.3, 0.5, 0.45), *repeats(0, 0.4, [0.3, 0.4, 0.35]), *others)
    widths = [half_width(d, 2) for d in ([0.01, -0.01, 0.01], [0.03, -0.02, -0.01])]
    assert found.kind == "not significant"
    text = "mask_ratio makes no difference from the preset's 0.4 that 3 seeds can show"
    assert found.finding == f"{text} (±{max(widths):.3f} segmentation mIoU)."


def test_a_text_is_quoted_and_belongs_to_trial_0_where_that_is_not_the_preset():
    tried = [("nothing", 0.3, 0), ("bf16", 0.31, 0), ("nothing", 0.3, 1), ("bf16", 0.33, 1), ("nothing", 0.4, 2)]
    tried.append(("bf16", 0.36, 2))
    rows = [trial(n, score, setting=n % 2, seed=seed, changed=name) for n, (name, score, seed) in enumerate(tried)]
    finding = verdict(*rows).finding
    assert finding.startswith('changed makes no difference from trial 0\'s "nothing" that 2 seeds can show (±')


def test_the_preset_is_known_by_what_is_searched_as_1_minus_a_field_too():
    trials = [trial(n, score, **{"1-momentum": value}) for n, (score, value) in enumerate([(0.3, 0.02), (0.5, 0.05)])]
    assert "from the preset" in verdict(*trials, base={"momentum": 0.98}).finding
    assert "from trial 0's setting" in verdict(*trials, base={"momentum": 0.9}).finding


def test_an_interval_that_includes_0_says_how_many_seeds_would_be_enough_if_they_can_be_trained():
    ours = repeats(0, 0.4, [0.3, 0.4, 0.35])
    promising = verdict(*search(0.3, 0.5), *ours, *repeats(1, 0.6, [0.33, 0.42, 0.35], 20))
    needed = seeds_needed(0.05 / 3, half_width([0.03, 0.02, 0.0]), 3)
    assert promising.next == ("sweep", "--repeat", str(needed), "--best", "1")
    assert promising.why == f"about {needed} seeds would show a difference of this size"
    hopeless = verdict(*search(0.3, 0.5), *ours, *repeats(1, 0.6, [0.34, 0.37, 0.341], 20))
    assert hopeless.next is None and "30 seeds would hardly show" in hopeless.why
    negative = verdict(*search(0.3, 0.5), *ours, *repeats(1, 0.6, [0.29, 0.4, 0.35], 20))
    assert negative.next is None and negative.why.startswith("keep the preset")


def test_as_many_seeds_as_are_said_to_be_needed_make_an_interval_that_excludes_0():
    width = half_width([0.03, 0.02, 0.0])
    needed = seeds_needed(0.05 / 3, width, 3)
    spread = width * math.sqrt(3) / stats.t.ppf(0.975, 2)
    at = [stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) for n in (needed - 1, needed)]
    assert at[0] >= 0.05 / 3 > at[1]
    wider = half_width([0.03, 0.02, 0.0], together=4)
    assert seeds_needed(0.05 / 3, wider, 3, together=4) > needed
    assert seeds_needed(0.0, width, 3) is seeds_needed(0.1, math.nan, 1) is seeds_needed(1e-6, width, 3) is None


def test_a_search_without_repeats_proves_nothing():
    found = verdict(*search(0.3, 0.5, 0.4), target=3)
    assert found.kind == "unproven"
    above = "segmentation mIoU 0.500, +0.200 from the preset"
    assert found.finding == f"Trial 1 (mask_ratio 0.6) scored best of 3 settings in the search: {above}."
    assert found.limits[0] == "One seed a setting proves nothing, and the best of 3 is also the luckiest."
    assert found.next == ("sweep", "--repeat", "5")
    none_better = verdict(*search(0.5, 0.3), target=2)
    assert (
        none_better.finding == "No setting of 2 scored higher in the search than the preset: segmentation mIoU 0.500."
    )


def test_a_search_that_is_not_done_is_continued_or_watched():
    assert verdict(*search(0.3, 0.5), target=8).next == ("sweep",)
    assert "2 of 8 trials are done" in verdict(*search(0.3, 0.5), target=8).why
    assert verdict(*search(0.3, 0.5), trial(2, state="waiting", mask_ratio=0.1)).next == ("sweep",)
    assert verdict(*search(0.3, 0.5), trial(2, state="running", mask_ratio=0.1)).next == ("status", "--watch")


def test_one_trial_has_nothing_to_be_compared_with():
    found = verdict(*search(0.3), target=1)
    assert found.finding.startswith("Only one setting has finished, the preset: segmentation mIoU 0.300")
    assert found.next == ("sweep", "--trials", "5")
    assert not any("luckiest" in limit for limit in found.limits)


def test_no_trial_at_all_none_finished_all_failed_all_pruned():
    assert verdict().finding == "No trial has begun."
    running = verdict(trial(0, state="running"), trial(1, state="waiting"), trial(2, state="waiting"))
    assert running.finding == "No trial has finished yet: 2 waiting, 1 running."
    assert running.next == ("status", "--watch")
    failed = verdict(trial(0, state="fail", error="loss nan at step 7"), trial(1, state="fail", error="no disk"))
    assert (failed.kind, failed.finding) == ("nothing finished", "All 2 trials failed.")
    assert failed.limits == ("2 trials of 2 failed; the last: no disk.",)
    assert failed.next == ("sweep",) and "cause is mended" in failed.why
    assert verdict(trial(0, state="fail")).finding == "The only trial failed."
    pruned = verdict(*(trial(n, 0.1, "pruned", mask_ratio=0.1) for n in range(3)), target=3)
    assert pruned.finding == "All 3 trials were pruned; none was trained to its end, so nothing is compared."
    assert pruned.next == ("sweep", "--trials", "7")


def test_no_more_trials_are_advised_than_the_space_has_settings():
    choices = {"decoder": {"name": "CategoricalDistribution", "attributes": {"choices": ["small", "large", "none"]}}}
    two = [trial(n, 0.1, "pruned", decoder=value) for n, value in enumerate(("small", "large"))]
    assert verdict(*two, target=2, space=choices).next == ("sweep", "--trials", "3")
    three = [*two, trial(2, 0.1, "pruned", decoder="none")]
    assert verdict(*three, target=3, space=choices).next is None


def test_a_score_that_could_not_be_measured_is_no_score():
    found = verdict(trial(0, None, mask_ratio=0.4), trial(1, math.nan, mask_ratio=0.6))
    assert found.finding == "No segmentation mIoU could be measured in 2 finished trials, so nothing is compared."
    assert found.next is None and "ground truth" in found.why
    pruned_too = verdict(trial(0, None, mask_ratio=0.4), trial(1, 0.1, "pruned", mask_ratio=0.6))
    assert pruned_too.finding.startswith("No segmentation mIoU could be measured in 1 finished trial,")
    assert verdict(trial(0, 0.3, mask_ratio=0.4), trial(1, None, mask_ratio=0.6)).finding.startswith("Only one setting")


def test_texts_booleans_and_none_are_settings_too():
    found = verdict(trial(0, 0.3, decoder="small", crf=True), trial(1, 0.4, decoder="large", crf=False))
    assert "Trial 1 (decoder large, crf False) scored best" in found.finding
    assert "from trial 0's setting" in found.finding  # crf is no field of the base configuration
    only = verdict(trial(0, 0.3, decoder="small"), trial(1, 0.4, decoder="None"))
    assert "Trial 1 (decoder None)" in only.finding and only.finding.endswith("from the preset.")


def test_only_what_changed_is_named_and_the_most_changed_first():
    names = dict(zip("abcde", (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    other = names | {"a": 0.11, "b": 0.8, "c": 0.03, "e": 0.51}
    found = verdict(trial(0, 0.3, **names), trial(1, 0.4, **other), base=names)
    assert found.finding.startswith("Trial 1 (c 0.03, b 0.8, a 0.11 and 1 more) scored best")


def test_unequal_seeds_count_as_the_pairs_that_they_make():
    ours, theirs = repeats(0, 0.4, [0.3, 0.4, 0.35, 0.9]), repeats(1, 0.6, [0.35, 0.46, 0.405], 20)
    assert verdict(*search(0.3, 0.5), *ours, *theirs).finding.endswith("over 3 seeds.")
    one = verdict(*search(0.3, 0.5), *ours, *repeats(1, 0.6, [0.35], 20))
    assert one.kind == "unproven" and "+0.050 segmentation mIoU with 1 seed, which proves nothing" in one.finding
    assert one.next == ("sweep", "--repeat", "5", "--best", "1")
    none_common = verdict(*search(0.3, 0.5), *ours[:2], *repeats(1, 0.6, [0.5, 0.6], 20, seeds=[8, 9]))
    assert none_common.kind == "unproven" and none_common.next[:2] == ("sweep", "--repeat")


def test_repeats_of_the_preset_alone_compare_nothing():
    found = verdict(*search(0.3, 0.5), *repeats(0, 0.4, [0.3, 0.4]))
    assert found.finding.startswith("Only the preset has fresh seeds (segmentation mIoU 0.350 over 2)")
    assert found.next == ("sweep", "--repeat", "5", "--best", "1")


def test_repeats_to_come_are_watched_and_a_luckier_setting_without_repeats_is_named():
    ours, theirs = repeats(0, 0.4, [0.3, 0.4, 0.35]), repeats(1, 0.6, [0.35, 0.46, 0.405], 20)
    later = trial(30, state="running", setting=1, seed=4, mask_ratio=0.6)
    found = verdict(*search(0.3, 0.5, 0.6), *ours, *theirs, later)
    assert found.kind == "better" and found.next == ("status", "--watch") and found.why == "1 repeat to come"
    assert "The best of the search, trial 2, has no fresh seeds yet." in found.limits


def test_pruned_failed_damaged_trials_and_mixed_code_limit_what_is_said():
    rows = [*search(0.3, 0.5), trial(2, 0.1, "pruned", mask_ratio=0.1), trial(3, state="fail", error="no disk")]
    rows += [
        trial(4, 0.2, mask_ratio=0.3, code="b", damage="result.json: empty"),
        trial(5, 0.2, mask_ratio=0.3, code="a"),
    ]
    assert verdict(*rows).limits[1:] == (
        "1 of 6 trials were pruned and are not ranked.",
        "1 trial of 6 failed; the last: no disk.",
        "1 trial of 6 have damaged files, which the table of trials names.",
        "2 code versions trained these trials; they may not be comparable.",
    )


def test_other_studies_have_no_part_in_a_verdict():
    other = [row | {"study": "t"} for row in search(0.9, 0.95)]
    tables = study(*search(0.3, 0.5), *other)
    assert "+0.200 from the preset" in judge(tables, "s", DEFINITION, 2).finding
    assert "+0.050 from the preset" in judge(tables, "t", DEFINITION, 2).finding


@pytest.fixture
def launched(tmp_path):
    folder = StudyFolder(tmp_path / "smoke")
    command = [
        "sweep.py",
        "--study=smoke",
        "--study",
        "smoke",
        "--data-folder",
        "x",
        "--iterations",
        "9",
        "--trials",
        "4",
    ]
    command += ["--detach", "--repeat=2", "--cluster", "local"]
    base = {"data_folder": "/data/with space", "dataset": "synthetic", "iterations": 9}
    return folder, {"base": base, "launched": {"command": command}, "metric": METRIC, "space": {}}


def test_the_line_to_type_next_has_the_flags_that_the_study_needs(launched):
    folder, definition = launched
    line = next_line(folder, definition, "sweep", "--repeat", "5")
    assert " sweep --study smoke --runs " in line
    assert line.endswith("--data_folder '/data/with space' --iterations 9 --cluster local --repeat 5")
    for unknown in ({}, {"command": ["repair.py", "--study", "smoke"], "restored": "2026"}):
        line = next_line(folder, definition | {"launched": unknown}, "sweep")
        assert line.endswith("--data_folder '/data/with space' --dataset synthetic --iterations 9")
    assert next_line(folder, definition, "status", "--watch").endswith(f"--runs {folder.folder.parent} --watch")
