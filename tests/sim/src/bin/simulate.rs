//! `simulate SEEDS [FIRST]`: runs so many seeds and stops at the first that breaks a rule.

#![allow(clippy::print_stderr, reason = "a tool for the terminal")]

use std::{env, process::ExitCode};

use sidestream_sim::{Outcome, Violation, run};

/// How many lines of a failing run's trace are printed.
const TAIL_LINES: usize = 120;

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> =
        env::args().skip(1).map(|argument| argument.parse().ok()).collect();
    let (seeds, first) = match numbers.as_deref() {
        Some([seeds]) => (*seeds, 0),
        Some([seeds, first]) => (*seeds, *first),
        Some(_) | None => {
            eprintln!("usage: simulate SEEDS [FIRST]");
            return ExitCode::from(2);
        }
    };
    let (mut kills, mut lines, mut swaps) = (0, 0, [0; 3]);
    for seed in first..first.saturating_add(seeds) {
        match run(seed) {
            Ok(outcome) => {
                kills += outcome.kills;
                lines += outcome.lines;
                let Outcome { taken_over, taken_back, kept, .. } = outcome;
                for (sum, more) in swaps.iter_mut().zip([taken_over, taken_back, kept]) {
                    *sum += more;
                }
            }
            Err(violation) => {
                tell(&violation);
                return ExitCode::FAILURE;
            }
        }
        let done = seed - first + 1;
        if done.is_multiple_of(1_000) {
            eprintln!("{done} of {seeds} seeds");
        }
    }
    let [over, back, kept] = swaps;
    eprintln!(
        "{seeds} seeds from {first}: all rules held; {kills} kills, {lines} events; versions of \
         code: {over} taken over, {back} taken back, {kept} kept"
    );
    ExitCode::SUCCESS
}

fn tell(violation: &Violation) {
    let lines = env::var("TRACE_LINES").ok().and_then(|lines| lines.parse().ok());
    let skipped = violation.tail.len().saturating_sub(lines.unwrap_or(TAIL_LINES));
    for line in &violation.tail[skipped..] {
        eprintln!("{line}");
    }
    eprintln!("{violation}");
    eprintln!("run it again with: ./dev simulate 1 {}", violation.seed);
}
