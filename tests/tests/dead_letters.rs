//! Dead letters and back: real agents make some, the command line counts, shows and puts them back,
//! each once, whatever dies on the way.

use std::{
    collections::BTreeMap,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use sidestream::crash_point::{self, CrashPoint};
use sidestream_dev_broker::{DevBroker, Options};
use sidestream_tests::{
    agent::{self, PATIENCE},
    broker,
    follow::{self, Record},
    load,
    operate::{self, Answer},
    random::Random,
    scene::{Play, Scene},
    wait,
};

/// The first transform rejects some records and traps at others; the second one gets from it what
/// passed, and rejects some of that.
const POISONED: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: first
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: }
    on_error: { dead_letter: '{application}-dead' }
    config: { reject: ['bad'], trap: ['boom'] }
  - name: second
    module: {modules}/poison.wasm
    inputs: [{ transform: first, output: out }]
    outputs: { out: '{topic:out}' }
    on_error: { dead_letter: '{application}-dead' }
    config: { reject: ['late'] }
",
    inputs: &[("in", record, 0), ("elsewhere", record, 0)],
    outputs: &["out"],
    ..Play::NOTHING
};

const RECORDS: u64 = 1_200;
/// How many of them begin with a word; the rest is fine.
const BAD: usize = 300;
const BOOM: usize = 12;
const LATE: usize = 12;

fn record(number: u64, _: &mut Random) -> load::Record {
    let word = match number % 100 {
        50 => "boom",
        51 => "late",
        rest if rest % 4 == 0 => "bad",
        _ => "fine",
    };
    load::Record {
        key: (!number.is_multiple_of(7)).then(|| format!("key-{}", number % 40).into_bytes()),
        value: Some(format!("{word} {number}").into_bytes()),
        timestamp: Some(1_700_000_000_000 + i64::try_from(number).unwrap_or(0)),
    }
}

/// A poison with headers, which no other record has.
fn send_with_headers(bootstrap: &str, topic: &str) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("abc") })
        .insert(Header { key: "empty", value: None::<&str> });
    let record = BaseRecord::<[u8], str>::to(topic).partition(2).headers(headers);
    let record = record.payload("bad with headers").timestamp(5);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(producer.flush(PATIENCE)?)
}

struct Letters {
    scene: Scene,
    pipeline: String,
}

impl Letters {
    /// Lets an agent make letters of what is sent.
    fn made(mut scene: Scene) -> Result<Self> {
        let bootstrap = scene.bootstrap().to_owned();
        let bootstrap = bootstrap.as_str();
        let topic = scene.topic("in");
        load::send_all(bootstrap, &topic, (1, record), RECORDS)?;
        send_with_headers(bootstrap, &topic)?;
        scene.start_agents(1)?;
        let pipeline = scene.agents[0].pipeline_file().display().to_string();
        let letters = Self { scene, pipeline };
        letters.wait_until_processed()?;
        Ok(letters)
    }

    fn wait_until_processed(&self) -> Result<()> {
        let (bootstrap, group) = (self.scene.bootstrap(), self.scene.application());
        let processed = || Ok(follow::lag(bootstrap, group, &self.scene.topic("in"))? == 0);
        wait::until_true("end of the work", PATIENCE, processed).with_context(|| self.scene.told())
    }

    fn verb(&self, words: &[&str]) -> Result<Answer> {
        operate::run(&[&["dead-letter"], words, &["--pipeline", &self.pipeline]].concat())
    }

    /// How many wait and how many were put back, by transform and exception.
    fn counts(&self) -> Result<BTreeMap<(String, String), (u64, u64)>> {
        let list = self.verb(&["list", "--limit", "1"])?.json()?;
        let counts = list["counts"].as_array().context("no counts")?.iter().map(|count| {
            let kind = (text(&count["transform"]), text(&count["exception"]));
            let number = |name: &str| count[name].as_u64().unwrap_or(u64::MAX);
            (kind, (number("waiting"), number("put_back")))
        });
        Ok(counts.collect())
    }

    /// Puts everything back, in a process that dies where it is told to.
    fn replay_and_die(&self, point: CrashPoint, passes: u64) -> Result<ExitStatus> {
        let mut command = Command::new(agent::binary()?);
        command.args(["dead-letter", "replay", "--all", "--pipeline", &self.pipeline]);
        command.env(crash_point::SWITCH, format!("{}:{passes}", point.name()));
        Ok(command.output()?.status)
    }

    /// How often each poison of the first transform stands in its input, as what it was.
    fn poison(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        let mut found = BTreeMap::<String, Vec<Record>>::new();
        for record in self.scene.read(&self.scene.topic("in"))? {
            let text = record.value_text();
            if text.starts_with("bad") || text.starts_with("boom") {
                found.entry(text).or_default().push(Record { offset: 0, ..record });
            }
        }
        Ok(found)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn kind(transform: &str, exception: &str) -> (String, String) {
    (transform.to_owned(), exception.to_owned())
}

#[test]
fn letters_are_counted_shown_and_put_back_each_once_over_kills() -> Result<()> {
    let broker = DevBroker::start(Options::default())?;
    let mut letters = Letters::made(Scene::on_own_broker(&broker.bootstrap(), POISONED)?)?;
    let (bad, boom, late) = (BAD as u64 + 1, BOOM as u64, LATE as u64);
    let count = |waiting: (u64, u64), back: (u64, u64)| {
        BTreeMap::from([
            (kind("first", "reject"), (waiting.0, back.0)),
            (kind("first", "trap"), (waiting.1, back.1)),
            (kind("second", "reject"), (late, 0)),
        ])
    };
    ensure!(letters.counts()? == count((bad, boom), (0, 0)), "{:?}", letters.counts()?);
    check_shown(&letters)?;
    ensure!(letters.scene.agents[0].terminate()?.success(), "{}", letters.scene.told());

    // What was wrong is put right: nothing fails in the first transform any more.
    let file = std::fs::read_to_string(&letters.pipeline)?;
    std::fs::write(&letters.pipeline, file.replace("reject: ['bad'], trap: ['boom']", ""))?;
    for (to, why) in [
        ("nowhere", "not there"),
        ("scene-dead", "dead-letter topic"),
        ("scene-counts-changelog", "changelog of a store"),
    ] {
        let refused = letters.verb(&["replay", "--all", "--to", to])?;
        ensure!(refused.exit == 4 && refused.text.contains(why), "{refused:?}");
    }
    let dry = letters.verb(&["replay", "--transform", "first", "--dry-run"])?.json()?;
    ensure!(dry["put_back"]["in"] == bad + boom && dry["left"] == late, "{dry}");
    replay_over_kills(&letters)?;
    ensure!(letters.counts()? == count((0, 0), (bad, boom)), "{:?}", letters.counts()?);
    for (value, found) in letters.poison()? {
        let [first, second] = found.as_slice() else { bail!("{value} is there {found:?}") };
        ensure!(first == second, "{first:?} came back as {second:?}");
    }
    check_homeless(&letters)?;

    letters.scene.agents[0].start()?;
    letters.wait_until_processed()?;
    let mut seen = BTreeMap::<String, u64>::new();
    for record in letters.scene.read(&letters.scene.topic("out"))? {
        *seen.entry(record.value_text()).or_default() += 1;
    }
    let expected = usize::try_from(RECORDS)? + 1 - LATE;
    ensure!(seen.len() == expected && seen.values().all(|count| *count == 1), "{seen:?}");
    ensure!(letters.counts()?.len() == 3, "nothing became a letter again");
    letters.scene.agents[0].terminate().map(drop)
}

/// One letter is shown as the record that it was.
fn check_shown(letters: &Letters) -> Result<()> {
    let list = letters.verb(&["list", "--transform", "first", "--limit", "1000"])?.json()?;
    let list = list["letters"].as_array().context("no letters")?.clone();
    ensure!(list.len() == BAD + BOOM + 1, "{} are listed", list.len());
    let with_headers = |letter: &&Value| letter["timestamp_ms"] == 5;
    let letter = list.iter().find(with_headers).context("one has another time")?;
    ensure!(letter["source"]["topic"] == "in" && letter["source"]["partition"] == 2, "{letter}");
    let place = text(&letter["place"]);
    let shown = letters.verb(&["show", &place])?.json()?["letter"].clone();
    ensure!(shown["value"] == "bad with headers" && shown["put_back"].is_null(), "{shown}");
    ensure!(shown["headers"][0]["name"] == "trace", "{shown}");
    ensure!(shown["headers"][0]["value"] == "abc", "{shown}");
    ensure!(shown["headers"][1]["value_hex"].is_null(), "{shown}");
    ensure!(text(&shown["message"]).contains("poisoned at offset"), "{shown}");
    let raw = letters.verb(&["show", &place, "--raw"])?;
    ensure!(raw.text == "bad with headers", "{raw:?}");
    let trap = list.iter().find(|letter| letter["exception"] == "trap").context("no trap")?;
    ensure!(text(&trap["message"]).contains("poisoned at offset"), "{trap}");
    let nothing = letters.verb(&["show", "scene-dead:0:1000000"])?;
    ensure!(nothing.exit == 1 && nothing.text.contains("no dead letter"), "{nothing:?}");
    Ok(())
}

/// Each of these dies at another point, and with another number of transactions behind it.
fn replay_over_kills(letters: &Letters) -> Result<()> {
    let poison = BAD + BOOM + 1;
    let back = || -> Result<usize> {
        let found = letters.poison()?;
        ensure!(found.len() == poison && found.values().all(|all| all.len() <= 2), "{found:?}");
        Ok(found.values().filter(|all| all.len() == 2).count())
    };
    let mut before = 0;
    for (point, passes, transactions) in [
        (CrashPoint::AfterProduce, 1, 0),
        (CrashPoint::AfterEnd, 1, 1),
        (CrashPoint::BeforeEnd, 2, 1),
    ] {
        let status = letters.replay_and_die(point, passes)?;
        ensure!(status.code().is_none(), "it did not die {}: {status}", point.name());
        // A transaction that nobody ends hides what is behind it until the next replay ends it.
        let next = letters.verb(&["replay", "scene-dead:0:1000000"])?;
        ensure!(next.exit == 1 && next.text.contains("no dead letter at"), "{next:?}");
        let now = back()?;
        ensure!(now == before + 100 * transactions, "{now} after {before} at {}", point.name());
        before = now;
    }
    let last = letters.verb(&["replay", "--transform", "first"])?.json()?;
    ensure!(last["put_back"]["in"] == poison - before, "{last}");
    ensure!(last["put_back_before"] == before && last["left"] == LATE, "{last}");
    ensure!(back()? == poison, "not all are back");
    let again = letters.verb(&["replay", "--transform", "first"])?.json()?;
    ensure!(again["put_back_before"] == poison, "{again}");
    let again = letters.verb(&["replay", "--transform", "first", "--again", "--dry-run"])?;
    ensure!(again.json()?["put_back"]["in"] == poison, "{again:?}");
    Ok(())
}

/// What was handed over inside a task has no topic, but can be put into one.
fn check_homeless(letters: &Letters) -> Result<()> {
    let all = letters.verb(&["replay", "--all"])?;
    ensure!(all.exit == 1 && all.text.contains("--to"), "{all:?}");
    let list = letters.verb(&["list", "--waiting"])?.json()?;
    ensure!(list["letters"].as_array().is_some_and(|all| all.len() == LATE), "{list}");
    let letter = &list["letters"][0];
    ensure!(letter["handed_over_by"] == "first", "{letter}");
    let place = text(&letter["place"]);
    let put = letters.verb(&["replay", &place, "--to", "elsewhere"])?.json()?;
    ensure!(put["put_back"]["elsewhere"] == 1 && put["left"] == LATE - 1, "{put}");
    let elsewhere = letters.scene.read(&letters.scene.topic("elsewhere"))?;
    let [record] = elsewhere.as_slice() else { bail!("{elsewhere:?}") };
    ensure!(record.value_text().starts_with("late") && record.headers.is_empty(), "{record:?}");
    let shown = letters.verb(&["show", &place])?.json()?["letter"].clone();
    ensure!(shown["put_back"]["to"] == "elsewhere", "{shown}");
    Ok(())
}

/// Says in a partition of a dead-letter topic, as a replay does, that letters were put back.
fn send_marks(bootstrap: &str, topic: &str, partition: i32, marks: &[&str]) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    for &mark in marks {
        let header = Header { key: "__sidestream.put.back", value: Some(mark) };
        let record = BaseRecord::<[u8], str>::to(topic).partition(partition).payload("nowhere");
        let record = record.headers(OwnedHeaders::new().insert(header));
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Whoever else writes a mark makes a replay pass over a letter at most, which is told.
fn check_forged_marks(letters: &Letters) -> Result<()> {
    // What ended just now is seen a little later.
    let all = || {
        let of_first =
            letters.counts()?.into_iter().filter(|((transform, _), _)| transform == "first");
        Ok(of_first.map(|(_, (waiting, back))| waiting + back).sum::<u64>()
            == BAD as u64 + BOOM as u64 + 1)
    };
    wait::until_true("all letters", PATIENCE, all)?;
    let list = letters.verb(&["list", "--transform", "first", "--limit", "1"])?.json()?;
    let place = text(&list["letters"][0]["place"]);
    let parts: Vec<&str> = place.rsplitn(3, ':').collect();
    let [offset, partition, topic] = parts.as_slice() else { bail!("{place} is no place") };
    let marks = [offset, "1000000", "-1", "9223372036854775807", "x"];
    send_marks(letters.scene.bootstrap(), topic, partition.parse()?, &marks)?;
    let poison = BAD + BOOM + 1;
    let dry = letters.verb(&["replay", "--transform", "first", "--dry-run"])?.json()?;
    ensure!(dry["put_back_before"] == 1 && dry["foreign_marks"] == 3, "{dry}");
    ensure!(dry["put_back"][letters.scene.topic("in")] == poison - 1, "{dry}");
    ensure!(letters.verb(&["list"])?.json()?["foreign_marks"] == 3, "they are told");
    let again = letters.verb(&["replay", &place, "--again"])?.json()?;
    ensure!(again["put_back"][letters.scene.topic("in")] == 1, "{again}");
    Ok(())
}

#[test]
fn replays_at_once_put_nothing_back_twice() -> Result<()> {
    const AT_ONCE: usize = 4;
    let mut letters = Letters::made(Scene::new(&broker::shared().bootstrap(), POISONED)?)?;
    ensure!(letters.scene.agents[0].terminate()?.success(), "{}", letters.scene.told());
    check_forged_marks(&letters)?;
    std::thread::scope(|scope| {
        let replay = || letters.verb(&["replay", "--transform", "first"]);
        let replays: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(replay)).collect();
        for replay in replays {
            // One that another one fences can't go on, and says so.
            let answer = replay.join().map_err(|_| anyhow!("it panicked"))??;
            ensure!([0, 4].contains(&answer.exit), "{answer:?}");
        }
        anyhow::Ok(())
    })?;
    letters.verb(&["replay", "--transform", "first"])?.json()?;
    for (value, found) in letters.poison()? {
        ensure!(found.len() == 2, "{value} is there {found:?}");
    }
    Ok(())
}
