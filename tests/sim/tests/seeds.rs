//! Many seeds, and that a seed says everything.

use sidestream_sim::run;

/// How many seeds the test run takes.
const SEEDS: u64 = 500;

#[test]
fn all_rules_hold_whatever_fails() {
    let (mut kills, mut swaps, mut failures) = (0, [0; 3], Vec::new());
    for seed in 0..SEEDS {
        match run(seed) {
            Ok(outcome) => {
                kills += outcome.kills;
                swaps[0] += outcome.taken_over;
                swaps[1] += outcome.taken_back;
                swaps[2] += outcome.kept;
            }
            Err(violation) => {
                let tail = violation.tail.iter().rev().take(60).rev();
                let tail: Vec<&str> = tail.map(String::as_str).collect();
                failures.push(format!(
                    "{}\n{violation}\nrun it again with: ./dev simulate 1 {seed}",
                    tail.join("\n")
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} seeds fail:\n{}", failures.len(), failures.join("\n\n"));
    assert!(kills > SEEDS, "the faults hardly ever happened: {kills} kills");
    assert!(swaps.iter().all(|&times| times > SEEDS / 4), "swaps hardly ever happened: {swaps:?}");
}

/// Seeds that found a bug of the core once, or that a rule was held against wrongly.
#[test]
fn what_was_found_once_stays_found() {
    for seed in [
        18, 469, 632, 669, 1_589, 2_379, 2_382, 2_398, 4_675, 6_361, 7_210, 12_644, 15_228, 16_519,
        22_592, 26_216, 27_372, 29_464, 35_294, 50_329, 50_513, 50_864, 51_193, 51_694, 52_904,
        53_606, 53_864, 54_681, 55_128, 55_340, 55_465, 56_828, 57_273, 57_313, 57_314, 57_968,
        58_028, 58_620, 61_901, 64_716, 71_855, 72_446, 79_730, 80_907, 96_149, 108_192, 109_102,
    ] {
        if let Err(violation) = run(seed) {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..40 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.map_err(|e| e.violation), second.map_err(|e| e.violation), "seed {seed}");
    }
}
