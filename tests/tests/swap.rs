//! A real agent whose module is swapped while records flow: by its operator, and by its file.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sidestream::guest::Digest;
use sidestream_tests::{
    agent::{Agent, PATIENCE},
    broker, examples,
    operate::{self, Answer, ask},
    scene::{Play, Scene},
    swap_chaos,
    versions::{Behaviour, Candidate},
    wait,
};

/// A module whose file is the agent's own, which a test puts there. On probation each of the four
/// instances comes to its thousandth record.
const PLAY: Play = Play {
    pipeline: "\
{head}
swap:
  { probation_records: 8000, probation_time: 1s, probation_time_max: 2m, versions_max: 3, output_ratio_max: 3 }
transforms:
  - name: stamp
    module: '{state}.wasm'
    inputs: ['{topic:in}']
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}', copies: '{topic:copies}' }
",
    inputs: &[("in", examples::event, 5_000)],
    outputs: &["stamped", "copies"],
    repartitions: &[],
    stores: &["stamps"],
    check: |scene| swap_chaos::check(scene, &std::collections::BTreeSet::new()),
};

/// The same, where what fails is passed over, and a probation is soon unproven.
const IMPATIENT: Play = Play {
    pipeline: "\
{head}
swap: { probation_records: 1000, probation_time: 1s, probation_time_max: 2s }
transforms:
  - name: stamp
    module: '{state}.wasm'
    inputs: ['{topic:in}']
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}', copies: '{topic:copies}' }
    on_error: skip
",
    ..PLAY
};

/// The same with a probation that outlasts a test, and module files that are looked at at a start
/// alone.
const SLOW: Play = Play {
    pipeline: "\
{head}
swap: { probation_records: 1000000, probation_time: 5m, probation_time_max: 5m, watch: false }
transforms:
  - name: stamp
    module: '{state}.wasm'
    inputs: ['{topic:in}']
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}', copies: '{topic:copies}' }
",
    ..PLAY
};

struct Stage {
    scene: Scene,
    folder: tempfile::TempDir,
    next_version: u32,
}

impl Stage {
    /// One agent at work, with version 1 in its module file.
    fn new() -> Result<Self> {
        Self::of(PLAY)
    }

    fn of(play: Play) -> Result<Self> {
        let mut scene = Scene::new(&broker::shared().bootstrap(), play)?;
        scene.add_agent()?;
        let folder = tempfile::tempdir()?;
        let mut stage = Self { scene, folder, next_version: 1 };
        stage.put_file(Candidate::GOOD)?;
        stage.scene.start_load(1)?;
        stage.scene.agents[0].start()?;
        stage.scene.wait_for_progress()?;
        stage.wait_until_ready()?;
        Ok(stage)
    }

    fn agent(&mut self) -> &mut Agent {
        &mut self.scene.agents[0]
    }

    fn bytes(&mut self, candidate: Candidate) -> Result<Vec<u8>> {
        let version = self.next_version;
        self.next_version += 1;
        candidate.bytes(version)
    }

    /// Puts another module into the agent's file, as an editor does; says which.
    fn put_file(&mut self, candidate: Candidate) -> Result<String> {
        let bytes = self.bytes(candidate)?;
        let file = self.agent().state_directory().with_extension("wasm");
        let new = file.with_extension("new");
        fs::write(&new, &bytes)?;
        fs::rename(new, file)?;
        Ok(Digest::of(&bytes).to_string())
    }

    /// A file that nobody watches.
    fn file(&mut self, candidate: Candidate) -> Result<(PathBuf, String)> {
        let bytes = self.bytes(candidate)?;
        let file = self.folder.path().join(format!("{}.wasm", self.next_version));
        fs::write(&file, &bytes)?;
        Ok((file, Digest::of(&bytes).to_string()))
    }

    /// Runs a verb of the operator.
    fn run(&mut self, arguments: &[&str]) -> Result<Answer> {
        let state = self.agent().state_directory().display().to_string();
        operate::run(&[arguments, &["--state", &state]].concat())
    }

    /// Swaps, and says what came of it and which module it was.
    fn swap(&mut self, candidate: Candidate, arguments: &[&str]) -> Result<(Answer, String)> {
        let (file, digest) = self.file(candidate)?;
        let file = file.display().to_string();
        let answer = self.run(&[&["swap", "stamp", &file], arguments].concat())?;
        Ok((answer, digest))
    }

    fn transform(&mut self) -> Result<Value> {
        Ok(ask(self.agent(), &["status"])?["transforms"][0].clone())
    }

    fn running(&mut self) -> Result<String> {
        Ok(self.transform()?["digest"].as_str().context("a digest")?.to_owned())
    }

    /// All of its workers run.
    fn wait_until_ready(&mut self) -> Result<()> {
        let agent = &self.scene.agents[0];
        let ready = || Ok(ask(agent, &["status"]).is_ok_and(|status| status["ready"] == true));
        wait::until_true("ready agent", PATIENCE, ready).with_context(|| agent.log_tail())
    }

    fn wait_until_runs(&mut self, digest: &str) -> Result<()> {
        let runs = || Ok(self.running().is_ok_and(|running| running == digest));
        let waited = wait::until_true(&format!("version {digest}"), PATIENCE, runs);
        waited.with_context(|| self.scene.told())
    }

    /// Everything is processed, and comes to what it should.
    fn finish(mut self) -> Result<()> {
        self.scene.settle()?;
        self.scene.check().map(drop)
    }
}

/// The last phase that an answer tells of.
fn end(answer: &Answer) -> Result<String> {
    let told: Value = serde_json::from_str(&answer.text).with_context(|| answer.text.clone())?;
    let phases = told["phases"].as_array().with_context(|| answer.text.clone())?;
    let last = phases.last().with_context(|| answer.text.clone())?;
    Ok(last["phase"].as_str().context("a name")?.to_owned())
}

#[test]
fn good_modules_are_kept_and_bad_ones_leave_by_themselves() -> Result<()> {
    let mut stage = Stage::new()?;
    let first = stage.running()?;
    let (planned, _) = stage.swap(Candidate::GOOD, &["--dry-run"])?;
    let plan = planned.json()?["plan"].clone();
    ensure!(plan["from_digest"] == first.as_str(), "{plan}");
    ensure!((plan["tasks"].as_u64(), plan["tasks_initialised"].as_u64()) == (Some(4), Some(4)));
    ensure!(stage.running()? == first, "a dry run replaces nothing");
    let (kept, second) = stage.swap(Candidate::GOOD, &[])?;
    ensure!((kept.exit, end(&kept)?.as_str()) == (0, "kept"), "{kept:?}");
    for bad in Candidate::BAD {
        ensure!(stage.running()? == second);
        let (answer, digest) = stage.swap(bad, &[])?;
        let expected = if bad.is_refused() { "refused" } else { "rolled_back" };
        ensure!(answer.exit != 0 && end(&answer)? == expected, "{bad:?}: {answer:?}");
        let after = stage.transform()?;
        ensure!(after["digest"] == second.as_str(), "{bad:?} stays: {after}");
        ensure!(!after["versions"].to_string().contains(&digest), "{bad:?} is listed: {after}");
    }
    stage.finish()
}

#[test]
fn what_was_kept_comes_back_after_a_restart_and_can_be_left_again() -> Result<()> {
    let mut stage = Stage::new()?;
    let first = stage.running()?;
    let (kept, second) = stage.swap(Candidate::GOOD, &[])?;
    ensure!(end(&kept)? == "kept", "{kept:?}");
    // Killed on probation: what was not kept is forgotten, and what it committed stays.
    let (answer, third) = stage.swap(Candidate::GOOD, &["--no-wait"])?;
    ensure!(end(&answer)? == "probation" && stage.running()? == third, "{answer:?}");
    stage.agent().kill()?;
    stage.agent().start()?;
    stage.wait_until_runs(&second)?;
    stage.wait_until_ready()?;
    stage.scene.wait_for_progress()?;
    // One swap at a time; a rollback ends a probation.
    stage.swap(Candidate::GOOD, &["--no-wait"])?;
    let (busy, _) = stage.swap(Candidate::GOOD, &[])?;
    ensure!(busy.exit != 0, "two at once: {busy:?}");
    let back = stage.run(&["rollback", "stamp"])?;
    ensure!(back.exit == 0 && stage.running()? == second, "{back:?}");
    // Back to the file's module, forth by the digits of a digest, and over a stop in good order.
    let back = stage.run(&["rollback", "stamp"])?;
    ensure!(back.exit == 0 && stage.running()? == first, "{back:?}");
    let unknown = stage.run(&["rollback", "stamp", "--to", &third[..12]])?;
    ensure!(unknown.exit != 0, "it was never kept: {unknown:?}");
    let forth = stage.run(&["rollback", "stamp", "--to", &second[..12]])?;
    ensure!(forth.exit == 0 && stage.running()? == second, "{forth:?}");
    ensure!(stage.agent().terminate()?.success(), "it drains");
    stage.agent().start()?;
    stage.wait_until_runs(&second)?;
    stage.finish()
}

#[test]
fn a_module_file_that_changes_is_swapped_in() -> Result<()> {
    let mut stage = Stage::new()?;
    let first = stage.running()?;
    let second = stage.put_file(Candidate::GOOD)?;
    stage.wait_until_runs(&second)?;
    stage.agent().wait_for_log("outcome=\"kept\"")?;
    let pipeline = stage.agent().pipeline_file();
    let text = fs::read_to_string(&pipeline)?;
    fs::write(&pipeline, format!("{text}\n# changed\n"))?;
    stage.agent().wait_for_log("the pipeline file changed")?;
    // A bad file is taken back, and a restart does not try it again.
    stage.put_file(Candidate::Version(Behaviour::TrapAt(1)))?;
    stage.agent().wait_for_log("outcome=\"rolled_back\"")?;
    ensure!(stage.running()? == second);
    stage.put_file(Candidate::NotAModule)?;
    stage.agent().wait_for_log("outcome=\"refused\"")?;
    stage.agent().kill()?;
    stage.agent().start()?;
    stage.wait_until_runs(&second)?;
    // Killed on probation: it is tried again.
    let third = stage.put_file(Candidate::GOOD)?;
    stage.wait_until_runs(&third)?;
    stage.agent().kill()?;
    stage.agent().start()?;
    stage.agent().wait_for_log("outcome=\"kept\"")?;
    ensure!(stage.running()? == third);
    // A file that was put there while nobody looked is new.
    stage.agent().kill()?;
    let fourth = stage.put_file(Candidate::GOOD)?;
    stage.agent().start()?;
    stage.agent().wait_for_log("outcome=\"kept\"")?;
    ensure!(stage.running()? == fourth && first != second && second != fourth);
    // It gets no further than by a swap: what is bad leaves by itself.
    for (bad, outcome) in [
        (Candidate::Version(Behaviour::TrapAt(1)), "rolled_back"),
        (Candidate::Version(Behaviour::TrapAtInitialise), "refused"),
        (Candidate::NotAModule, "refused"),
    ] {
        stage.agent().kill()?;
        stage.put_file(bad)?;
        stage.agent().start()?;
        stage.agent().wait_for_log(&format!("outcome=\"{outcome}\""))?;
        ensure!(stage.running()? == fourth, "{bad:?}");
    }
    stage.finish()
}

#[test]
fn a_module_that_saw_no_records_is_unproven_and_judged_when_they_come() -> Result<()> {
    let mut stage = Stage::of(IMPATIENT)?;
    let first = stage.running()?;
    // It would skip every record that the one before does not fail at: the check at the end finds it.
    ensure!(stage.run(&["pause"])?.exit == 0);
    let (answer, bad) = stage.swap(Candidate::Version(Behaviour::TrapAt(1)), &[])?;
    ensure!((answer.exit, end(&answer)?.as_str()) == (8, "unproven"), "{answer:?}");
    ensure!(stage.running()? == bad && bad != first);
    ensure!(stage.run(&["resume"])?.exit == 0);
    let back = stage.agent().wait_for_log("outcome=\"rolled_back\"")?;
    ensure!(back.contains("the version before succeeds at it"), "{back}");
    stage.wait_until_runs(&first)?;
    // Another swap of the transform takes an unproven version back first.
    ensure!(stage.run(&["pause"])?.exit == 0);
    let (answer, _) = stage.swap(Candidate::Version(Behaviour::TrapAt(1)), &[])?;
    ensure!(answer.exit == 8, "{answer:?}");
    let (answer, good) = stage.swap(Candidate::GOOD, &[])?;
    ensure!(answer.exit == 8 && stage.running()? == good, "{answer:?}");
    ensure!(stage.run(&["resume"])?.exit == 0);
    stage.agent().wait_for_log("outcome=\"kept\"")?;
    ensure!(stage.running()? == good);
    stage.finish()
}

#[test]
fn what_a_module_takes_more_of_can_be_accepted() -> Result<()> {
    let mut stage = Stage::new()?;
    let grown = Candidate::Version(Behaviour::Grow(2_000));
    let (answer, _) = stage.swap(grown, &["--accept", "cpu,memory"])?;
    let told = answer.text.clone();
    ensure!(answer.exit == 5 && told.contains("`swap.output_ratio_max` is 3"), "{answer:?}");
    ensure!(told.contains("--accept output"), "{told}");
    let (answer, digest) = stage.swap(grown, &["--accept", "output,cpu,memory"])?;
    ensure!((answer.exit, end(&answer)?.as_str()) == (0, "kept"), "{answer:?}");
    ensure!(stage.running()? == digest);
    stage.finish()
}

#[test]
fn a_module_file_that_ends_the_process_twice_is_given_up() -> Result<()> {
    let mut stage = Stage::of(SLOW)?;
    let first = stage.running()?;
    stage.agent().kill()?;
    let deadly = stage.put_file(Candidate::GOOD)?;
    for _ in 0..2 {
        stage.agent().start()?;
        // On probation, whose end it does not live to see.
        stage.wait_until_runs(&deadly)?;
        stage.agent().kill()?;
    }
    stage.agent().start()?;
    stage.wait_until_ready()?;
    ensure!(stage.running()? == first);
    let events = stage.run(&["events"])?.text;
    ensure!(events.contains("swap_refused") && events.contains("the process ended"), "{events}");
    // Stops in good order do not count, and another file is another matter.
    let another = stage.put_file(Candidate::GOOD)?;
    for _ in 0..3 {
        ensure!(stage.agent().terminate()?.success());
        stage.agent().start()?;
        stage.wait_until_runs(&another)?;
    }
    stage.finish()
}

#[test]
fn a_new_module_file_takes_the_place_of_a_version_that_does_not_fit_or_is_damaged() -> Result<()> {
    let mut stage = Stage::of(SLOW)?;
    let modules = stage.agent().state_directory().join("modules");
    for damage in [true, false] {
        stage.agent().kill()?;
        if damage {
            for entry in walk(&modules)? {
                if entry.extension().is_some_and(|suffix| suffix == "wasm") {
                    fs::write(entry, "damaged")?;
                }
            }
        } else {
            // What ran last rejects its pipeline.
            fs::remove_dir_all(&modules)?;
            stage.put_file(Candidate::Version(Behaviour::RejectAtInitialise))?;
            stage.agent().start()?;
            stage.agent().wait_for_log("rejects every pipeline")?;
            stage.agent().kill()?;
        }
        let file = stage.put_file(Candidate::GOOD)?;
        stage.agent().start()?;
        stage.wait_until_runs(&file)?;
        stage.wait_until_ready()?;
        let events = stage.run(&["events"])?.text;
        ensure!(events.contains("module_file_instead"), "{damage}: {events}");
    }
    stage.finish()
}

/// All files below a folder.
fn walk(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(walk(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}
