//! Real agents whose pipeline file is another one each time they start, over the same application,
//! state and topics: transforms, stores, inputs, workers and the guarantee change, and the result is
//! that of a pipeline that was always there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use sidestream_tests::{
    agent::PATIENCE,
    broker, examples,
    follow::{Follower, Record},
    members,
    scene::{PARTITIONS, Play, Scene},
    wait,
};
use sidestream_verifier::{
    check::Stamps,
    verdict::{Kind, Verdict},
};

/// One at a time: each has several processes and its own deadlines.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const STAMP: &str = "
  - name: stamp
    module: {modules}/stamp.wasm
    inputs: [{ topic: '{topic:a}', start: earliest }]
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}' }";

/// The same with another input.
const STAMP_BOTH: &str = "
  - name: stamp
    module: {modules}/stamp.wasm
    inputs: [{ topic: '{topic:a}', start: earliest }, { topic: '{topic:b}', start: earliest }]
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}' }";

/// The same store in another transform.
const KEEPER: &str = "
  - name: keeper
    module: {modules}/stamp.wasm
    inputs: [{ topic: '{topic:a}', start: earliest }]
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}' }";

/// Reads what `stamp` does: its records are counted while it is there.
const COUNT: &str = "
  - name: count
    module: {modules}/count.wasm
    inputs: [{ topic: '{topic:a}', start: earliest }]
    stores: [counts]
    outputs: { counts: '{topic:counts}' }";

/// Also reads what `stamp` does.
const ECHO: &str = "
  - name: echo
    module: {modules}/pass-through.wasm
    inputs: [{ topic: '{topic:a}', start: earliest }]
    outputs: { out: '{topic:echoes}' }";

/// Has tasks of its own.
const PASS: &str = "
  - name: pass
    module: {modules}/pass-through.wasm
    inputs: [{ topic: '{topic:c}', start: earliest }]
    outputs: { out: '{topic:copies}' }";

/// A pipeline file with these transforms, in this order.
fn file(guarantee: &str, transforms: &[&str]) -> String {
    format!("{{head}}\nguarantee: {guarantee}\ntransforms:{}\n", transforms.concat())
}

const PLAY: Play = Play {
    pipeline: "",
    inputs: &[("a", examples::event, 200), ("b", examples::event, 100), ("c", examples::event, 50)],
    outputs: &["stamped", "counts", "echoes", "copies"],
    repartitions: &[],
    stores: &["stamps", "counts"],
    check: |scene| {
        let pipeline = scene.pipeline();
        let (inputs, stamped) = ([scene.topic("a"), scene.topic("b")], scene.topic("stamped"));
        let stamps = Stamps { outputs_per_record: 1, same_value: false };
        Ok(vec![
            pipeline.stamped(&inputs, std::slice::from_ref(&stamped), stamps)?,
            pipeline.count(&inputs, &stamped, "stamps")?,
            pipeline.pass_through(&scene.topic("c"), &scene.topic("copies"))?,
            counted_while_there(scene)?,
            echoed_while_there(scene)?,
        ])
    },
};

/// The counter was there for a while, away for a while, and there again: it counts on.
fn counted_while_there(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let counts = scene.read(&scene.topic("counts"))?;
    verdict.compared("counts", counts.len());
    let mut last = BTreeMap::new();
    for record in &counts {
        let count: &mut u64 = last.entry(record.key_text()).or_default();
        *count += 1;
        if record.value_text() != count.to_string() {
            verdict.add(Kind::Wiped, || format!("{record:?} is not {count}"));
        }
    }
    let changes = scene.read(&scene.changelog("counts"))?;
    let state: BTreeMap<_, _> = changes.iter().map(|r| (r.key_text(), r.value_text())).collect();
    let fold: BTreeMap<_, _> = last.iter().map(|(key, n)| (key.clone(), n.to_string())).collect();
    if state != fold {
        verdict.add(Kind::Wiped, || "the store `counts` is not what was counted".to_owned());
    }
    Ok(verdict)
}

/// The echo was there once: it has passed on what lies between its beginning and its end.
fn echoed_while_there(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let (input, echoes) = (scene.read(&scene.topic("a"))?, scene.read(&scene.topic("echoes"))?);
    verdict.compared("echoes", echoes.len());
    for partition in 0..PARTITIONS {
        let values = |records: &[Record]| -> Vec<_> {
            let own = records.iter().filter(|record| record.partition == partition);
            own.map(|record| record.value.clone()).collect()
        };
        let (input, echoes) = (values(&input), values(&echoes));
        if echoes.is_empty() || !input.windows(echoes.len()).any(|part| part == echoes) {
            verdict.add(Kind::Wrong, || format!("partition {partition} has no whole echo"));
        }
    }
    Ok(verdict)
}

/// The inputs of the stamping transforms.
const STAMPED: [&str; 2] = ["a", "b"];

/// What the topic `stamped` has told so far.
struct Stamped {
    follower: Follower,
    /// Which records of each input partition came out.
    places: BTreeMap<(String, i32), BTreeSet<i64>>,
    /// How far each key is counted.
    counts: BTreeMap<Option<Vec<u8>>, u64>,
}

impl Stamped {
    fn new(scene: &Scene) -> Result<Self> {
        let follower = Follower::new(scene.bootstrap(), &scene.topic("stamped"))?;
        Ok(Self { follower, places: BTreeMap::new(), counts: BTreeMap::new() })
    }

    fn take(&mut self, record: &Record) -> Result<()> {
        let header = |name| record.header_text(name).with_context(|| format!("{record:?}"));
        let place = (header("input")?, header("partition")?.parse()?);
        let is_new = self.places.entry(place).or_default().insert(header("offset")?.parse()?);
        ensure!(is_new, "{record:?} is there twice");
        let count = self.counts.entry(record.key.clone()).or_default();
        *count += 1;
        ensure!(record.value_text() == count.to_string(), "{record:?} is not {count}");
        Ok(())
    }

    /// Checks that all that the group has read by now came out, each record once, and its key
    /// counted on. Markers come one after another, so outputs may be seen after their offsets.
    fn check(&mut self, scene: &Scene) -> Result<()> {
        let position = wait::until("position", PATIENCE, || scene.position().map(Some))?;
        let expected: BTreeMap<_, _> = position
            .into_iter()
            .filter(|((topic, _), offset)| {
                *offset > 0 && STAMPED.iter().any(|name| scene.topic(name) == *topic)
            })
            .collect();
        wait::until("end of the outputs", PATIENCE, || {
            let read = self.follower.read_to_end(PATIENCE)?;
            // What is wrong stays so: it is not to be waited for.
            if let Err(error) = read.iter().try_for_each(|record| self.take(record)) {
                return Ok(Some(Err(error)));
            }
            let missing = expected.iter().find(|(place, end)| {
                let found = self.places.get(*place);
                found.is_none_or(|found| found.range(..**end).count() as i64 != **end)
            });
            ensure!(missing.is_none(), "there is not all of {missing:?} yet");
            Ok(Some(Ok(())))
        })?
    }
}

/// How a life of an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a kill.
    Kill,
    /// In good order, to come back: its members stay in the group.
    Stop,
}

/// Ends an agent and starts it on another file.
fn restart(
    scene: &mut Scene,
    agent: usize,
    end: End,
    (file, workers): (&str, usize),
) -> Result<()> {
    match end {
        End::Kill => scene.agents[agent].kill()?,
        End::Stop => {
            let status = scene.agents[agent].terminate()?;
            ensure!(status.success(), "{status}: {}", scene.told());
        }
    }
    scene.write_pipeline(agent, file, workers)?;
    scene.agents[agent].start()
}

/// What an agent says that has its members of before leave.
const LEFT: &str = "left the group";

/// A life of an agent, after another one.
struct Life {
    what: &'static str,
    /// How the one before ends.
    after: End,
    guarantee: &'static str,
    transforms: &'static [&'static str],
    workers: usize,
    /// What it reads.
    reads: &'static [&'static str],
    /// Whether it asks its group for the same as the one before.
    asks_the_same: bool,
}

const EXACTLY: &str = "exactly_once";

const LIVES: &[Life] = &[
    Life {
        what: "another order, so that tasks have other numbers",
        after: End::Stop,
        guarantee: EXACTLY,
        transforms: &[PASS, COUNT, STAMP],
        workers: 2,
        reads: &["a", "c"],
        asks_the_same: true,
    },
    Life {
        what: "transforms and a store are gone",
        after: End::Kill,
        guarantee: EXACTLY,
        transforms: &[STAMP],
        workers: 2,
        reads: &["a"],
        asks_the_same: false,
    },
    Life {
        what: "the store is another transform's, and there are two more",
        after: End::Stop,
        guarantee: EXACTLY,
        transforms: &[ECHO, PASS, KEEPER],
        workers: 2,
        reads: &["a", "c"],
        asks_the_same: false,
    },
    Life {
        what: "an input more for the first transform, which has its store back",
        after: End::Kill,
        guarantee: EXACTLY,
        transforms: &[STAMP_BOTH, PASS],
        workers: 2,
        reads: &["a", "b", "c"],
        asks_the_same: false,
    },
    Life {
        what: "at least once, with a worker more",
        after: End::Kill,
        guarantee: "at_least_once",
        transforms: &[STAMP_BOTH, PASS],
        workers: 3,
        reads: &["a", "b", "c"],
        asks_the_same: false,
    },
    Life {
        what: "exactly once again, with two workers less, and the counter is back",
        after: End::Stop,
        guarantee: EXACTLY,
        transforms: &[COUNT, STAMP_BOTH, PASS],
        workers: 1,
        reads: &["a", "b", "c"],
        asks_the_same: false,
    },
    Life {
        what: "the same after a kill",
        after: End::Kill,
        guarantee: EXACTLY,
        transforms: &[COUNT, STAMP_BOTH, PASS],
        workers: 1,
        reads: &["a", "b", "c"],
        asks_the_same: true,
    },
];

#[test]
fn one_pipeline_file_after_another() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), PLAY)?;
    scene.start_load(31)?;
    scene.add_agent()?;
    scene.write_pipeline(0, &file(EXACTLY, &[STAMP, COUNT, PASS]), 2)?;
    scene.agents[0].start()?;
    let mut stamped = Stamped::new(&scene)?;
    let topics = |scene: &Scene, names: &[&str]| -> Vec<_> {
        names.iter().map(|name| scene.topic(name)).collect()
    };
    scene.wait_for_progress_in(&topics(&scene, &["a", "c"]))?;
    for life in LIVES {
        let file = file(life.guarantee, life.transforms);
        restart(&mut scene, 0, life.after, (&file, life.workers)).context(life.what)?;
        scene.wait_for_progress_in(&topics(&scene, life.reads)).context(life.what)?;
        stamped.check(&scene).with_context(|| format!("{}\n{}", life.what, scene.told()))?;
        let left = scene.agents[0].log().contains(LEFT);
        ensure!(!(left && life.asks_the_same), "{}: {}", life.what, scene.told());
    }
    scene.settle()?;
    stamped.check(&scene)?;
    scene.check().map(drop)
}

/// A stamping transform that is given an input more.
const GROWING: Play = Play {
    pipeline: "",
    inputs: &[("a", examples::event, 200), ("b", examples::event, 100)],
    outputs: &["stamped"],
    repartitions: &[],
    stores: &["stamps"],
    check: |scene| {
        let (inputs, stamped) = (STAMPED.map(|name| scene.topic(name)), scene.topic("stamped"));
        let stamps = Stamps { outputs_per_record: 1, same_value: false };
        let pipeline = scene.pipeline();
        Ok(vec![
            pipeline.stamped(&inputs, std::slice::from_ref(&stamped), stamps)?,
            pipeline.count(&inputs, &stamped, "stamps")?,
        ])
    },
};

/// One agent after the other is given an input that is read together with one that was there. Each
/// is back within its session, and is asked for by nobody else.
fn an_input_more_for_one_agent_after_the_other(bootstrap: &str) -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(bootstrap, GROWING)?;
    scene.start_load(32)?;
    for agent in 0..2 {
        scene.add_agent()?;
        scene.write_pipeline(agent, &file(EXACTLY, &[STAMP]), 2)?;
        scene.agents[agent].start()?;
    }
    scene.wait_for_progress_in(&[scene.topic("a")])?;
    let mut stamped = Stamped::new(&scene)?;
    for (agent, end) in [(0, End::Kill), (1, End::Stop)] {
        restart(&mut scene, agent, end, (&file(EXACTLY, &[STAMP_BOTH]), 2))?;
        // Beside one of the old file, which does not get it.
        let has_input = || {
            let members = members::assignments(scene.bootstrap(), scene.application())?;
            let own = members.iter().filter(|(id, _)| id.starts_with(scene.agents[agent].name()));
            Ok(own.flat_map(|(_, topics)| topics.keys()).any(|topic| *topic == scene.topic("b")))
        };
        wait::until_true("new input of the agent", PATIENCE, has_input)
            .with_context(|| scene.told())?;
        stamped.check(&scene).with_context(|| scene.told())?;
    }
    scene.wait_for_progress()?;
    scene.settle()?;
    scene.check().map(drop)
}

#[test]
fn an_input_more_reaches_agents_that_come_back_at_once() -> Result<()> {
    an_input_more_for_one_agent_after_the_other(&broker::shared().bootstrap())
}

#[test]
fn an_input_more_reaches_agents_that_come_back_at_once_on_the_embedded_broker() -> Result<()> {
    an_input_more_for_one_agent_after_the_other(&broker::embedded().bootstrap())
}
