//! The verifier on a real broker and a real store: what is exact passes, what was tampered with
//! does not. The topics are written by hand.

use std::{path::Path, time::Duration};

use anyhow::Result;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream::state::{Config, StoreKind, StoreSpec, Stores, TaskStores};
use sidestream_core::{
    record::{Changes, TaskId, TopicId},
    task::{Position, StorePosition},
};
use sidestream_tests::{broker, topics};
use sidestream_verifier::{
    read::Cluster,
    run::{Pipeline, WordCount},
    verdict::{Kind, Verdict},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn pipeline(name: &str, directories: &[&Path]) -> Pipeline {
    Pipeline {
        cluster: Cluster::new(&broker::shared().bootstrap()),
        application: topics::unique(name),
        state_directories: directories.iter().map(|path| path.to_path_buf()).collect(),
    }
}

impl Hand {
    fn new(pipeline: &Pipeline) -> Result<Self> {
        let bootstrap = pipeline.cluster.bootstrap.clone();
        let config = |transactional: Option<&str>| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &bootstrap);
            if let Some(id) = transactional {
                config.set("transactional.id", id);
            }
            config
        };
        Ok(Self {
            plain: config(None).create()?,
            transactional: config(Some(&pipeline.application)).create()?,
            application: pipeline.application.clone(),
            bootstrap,
        })
    }

    fn topic(&self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.application);
        // The records are from 2023.
        topics::create(&self.bootstrap, &name, 2, &[("retention.ms", "-1")])?;
        Ok(name)
    }

    fn put(&self, topic: &str, partition: i32, key: Option<&str>, value: &str) -> Result<()> {
        send(&self.plain, topic, partition, (key, value))?;
        Ok(self.plain.flush(PATIENCE)?)
    }

    fn commit(&self, topic: &str, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for partition in 0..2 {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        let consumer = topics::reader(&self.bootstrap, &self.application)?;
        Ok(consumer.commit(&list, CommitMode::Sync)?)
    }
}

/// Writes what an agent would write.
struct Hand {
    plain: BaseProducer,
    transactional: BaseProducer,
    application: String,
    bootstrap: String,
}

fn send(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    (key, value): (Option<&str>, &str),
) -> Result<()> {
    let header = Header { key: "from", value: Some("hand") };
    let mut record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .payload(value)
        .timestamp(1_700_000_000_000)
        .headers(OwnedHeaders::new().insert(header));
    record.key = key;
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}

fn assert_good(verdict: &Verdict) {
    assert!(verdict.is_good(), "{verdict}");
}

fn assert_has(verdict: &Verdict, kind: Kind) {
    assert!(verdict.has(kind), "{verdict}");
}

#[test]
fn a_copy_passes_until_it_is_tampered_with() -> Result<()> {
    let pipeline = pipeline("copy", &[]);
    let hand = Hand::new(&pipeline)?;
    let (input, output) = (hand.topic("in")?, hand.topic("out")?);
    for n in 0..50 {
        for partition in 0..2 {
            let key = (n % 3 > 0).then_some("key");
            hand.put(&input, partition, key, &format!("value{n}"))?;
            hand.put(&output, partition, key, &format!("value{n}"))?;
        }
    }
    hand.commit(&input, 50)?;
    let check = || pipeline.pass_through(&input, &output);
    let verdict = check()?;
    assert_good(&verdict);
    assert_eq!(verdict.compared["output records"], 100);
    hand.put(&input, 0, None, "beyond what is committed")?;
    assert_good(&check()?);
    // What was aborted is not there; what is open can't be judged.
    hand.transactional.init_transactions(PATIENCE)?;
    hand.transactional.begin_transaction()?;
    send(&hand.transactional, &output, 1, (None, "aborted"))?;
    hand.transactional.flush(PATIENCE)?;
    assert_has(&check()?, Kind::Unsettled);
    hand.transactional.abort_transaction(PATIENCE)?;
    assert_good(&check()?);
    hand.put(&output, 1, Some("key"), "value49")?;
    assert_has(&check()?, Kind::Doubled);
    hand.commit(&input, 51)?;
    assert_has(&check()?, Kind::Lost);
    Ok(())
}

/// Makes a change of partition 0 of the store `counts`, with the position behind it.
fn store(directory: &Path, words: &[(&str, &str)], offset: i64) -> Result<()> {
    let stores = Stores::open_directory(&Config::new(directory, "any"))?;
    let spec = StoreSpec { name: "counts".to_owned(), kind: StoreKind::RocksDb };
    let spec = TaskStores { stores: vec![spec], inputs: vec!["words".to_owned()] };
    let task = TaskId { subtopology: 1, partition: 0 };
    let changes = Changes {
        keys: words.iter().map(|(word, _)| Some(word.as_bytes())).collect(),
        values: words.iter().map(|(_, count)| Some(count.as_bytes())).collect(),
    };
    let position = StorePosition { offset, topic_id: TopicId::default(), leader_epoch: 0 };
    let position =
        Position { stores: vec![Some(position)], inputs: vec![3.into()], committed_at: 1 };
    stores.open(task, &spec)?.store.apply(&[changes], &position)?;
    Ok(())
}

#[test]
fn a_word_count_passes_until_its_store_is_tampered_with() -> Result<()> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let pipeline = pipeline("words", &[folders[0].path(), folders[1].path()]);
    let hand = Hand::new(&pipeline)?;
    let names = WordCount {
        lines: hand.topic("lines")?,
        repartition: "words".to_owned(),
        counts: hand.topic("counts")?,
        store: "counts".to_owned(),
    };
    let repartition = hand.topic("words-repartition")?;
    let changelog = hand.topic("counts-changelog")?;
    hand.put(&names.lines, 0, None, "a b")?;
    hand.put(&names.lines, 1, None, "a")?;
    hand.commit(&names.lines, 1)?;
    for (word, count) in [("a", "1"), ("b", "1"), ("a", "2")] {
        hand.put(&repartition, 0, Some(word), "")?;
        hand.put(&names.counts, 0, Some(word), count)?;
        hand.put(&changelog, 0, Some(word), count)?;
    }
    let check = || pipeline.word_count(&names);
    assert_has(&check()?, Kind::Unsettled);
    hand.commit(&repartition, 3)?;
    assert_has(&check()?, Kind::Lost);
    store(folders[0].path(), &[("a", "2"), ("b", "1")], 3)?;
    store(folders[1].path(), &[("a", "1")], 1)?;
    assert_good(&check()?);
    store(folders[0].path(), &[("a", "7")], 3)?;
    assert_has(&check()?, Kind::Wiped);
    store(folders[0].path(), &[("a", "2")], 3)?;
    assert_good(&check()?);
    hand.put(&changelog, 0, Some("a"), "1")?;
    assert_has(&check()?, Kind::Wiped);
    Ok(())
}
