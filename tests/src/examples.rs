//! All examples in one pipeline: sub-topologies of one application, so that each transaction holds
//! work of several of them.

use anyhow::Result;
use serde_json::json;
use sidestream_verifier::{
    check::Stamps,
    run::{Dedupe, Enrich},
    verdict::Verdict,
};

use crate::{
    load::Record,
    random::Random,
    scene::{Play, Scene},
    word_count,
};

/// For how long the de-duplicator remembers a key, as the pipeline file has it.
const WITHIN_MS: i64 = 2_000;

/// Word count, pass-through, the de-duplicator, the enrichment, and a counter over two inputs that
/// stamps what it emits. Its modules name their topics, so it needs a broker of its own ([`Scene::on_own_broker`](crate::scene::Scene)).
pub const EXAMPLES: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: split-words
    module: {modules}/split-words.wasm
    inputs: [lines]
    outputs:
      words: { repartition: words }
  - name: count-words
    module: {modules}/count-words.wasm
    inputs: [{ repartition: words }]
    stores: [counts]
    outputs: { counts: counts }
  - name: pass-through
    module: {modules}/pass-through.wasm
    inputs: [in]
    outputs: { out: out }
  - name: dedupe
    module: {modules}/dedupe.wasm
    inputs: [events]
    stores: [seen, expiries]
    outputs: { unique: unique }
    config: { within_ms: 2000 }
  - name: enrich
    module: {modules}/enrich.wasm
    inputs: [orders, customers]
    stores: [customers]
    outputs: { enriched: enriched }
  - name: stamp
    module: {modules}/stamp.wasm
    inputs: [left, right]
    stores: [stamps]
    outputs: { stamped: stamped }
",
    inputs: &[
        ("lines", word_count::many_words, 150),
        ("in", anything, 150),
        ("events", event, 150),
        ("orders", order, 100),
        ("customers", customer, 50),
        ("left", event, 100),
        ("right", event, 50),
    ],
    outputs: &["counts", "out", "unique", "enriched", "stamped"],
    repartitions: &["words"],
    stores: &["counts", "seen", "expiries", "customers", "stamps"],
    check,
};

fn check(scene: &Scene) -> Result<Vec<Verdict>> {
    let pipeline = scene.pipeline();
    let topic = |name| scene.topic(name);
    let mut verdicts = word_count::check(scene)?;
    verdicts.push(pipeline.pass_through(&topic("in"), &topic("out"))?);
    verdicts.push(pipeline.dedupe(&Dedupe {
        input: topic("events"),
        output: topic("unique"),
        within_ms: WITHIN_MS,
        stores: vec!["seen".to_owned(), "expiries".to_owned()],
    })?);
    verdicts.push(pipeline.enrich(&Enrich {
        orders: topic("orders"),
        customers: topic("customers"),
        enriched: topic("enriched"),
        store: "customers".to_owned(),
    })?);
    let inputs = [topic("left"), topic("right")];
    let stamps = Stamps { outputs_per_record: 1, same_value: false };
    verdicts.push(pipeline.stamped(&inputs, &[topic("stamped")], stamps)?);
    verdicts.push(pipeline.count(&inputs, &topic("stamped"), "stamps")?);
    Ok(verdicts)
}

/// Keys and values of any bytes. Values may be missing; keys may not, because a record without one
/// goes to any partition, so that there is no order to compare.
fn anything(_: u64, random: &mut Random) -> Record {
    let mut bytes = |length: u64| -> Vec<u8> {
        let length = random.within(0..length);
        (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
    };
    let (key, value) = (bytes(20), bytes(200));
    Record { key: Some(key), value: (!random.once_in(10)).then_some(value), timestamp: None }
}

/// A record of one of many keys, now and then without one.
pub fn event(number: u64, random: &mut Random) -> Record {
    Record {
        key: Some(format!("event-{}", random.skewed(2_000)).into_bytes()),
        value: Some(number.to_string().into_bytes()),
        timestamp: None,
    }
}

fn customer_id(random: &mut Random) -> Vec<u8> {
    format!("c-{}", random.skewed(500)).into_bytes()
}

fn order(number: u64, random: &mut Random) -> Record {
    let order = json!({ "id": format!("o-{number}"), "amount": random.within(1..10_000) });
    Record {
        key: Some(customer_id(random)),
        value: Some(order.to_string().into_bytes()),
        timestamp: None,
    }
}

/// A customer in a new state, or gone.
fn customer(number: u64, random: &mut Random) -> Record {
    let tier = if random.once_in(3) { "gold" } else { "blue" };
    let customer = json!({ "name": format!("Customer {number}"), "tier": tier });
    let gone = random.once_in(8);
    Record {
        key: Some(customer_id(random)),
        value: (!gone).then(|| customer.to_string().into_bytes()),
        timestamp: None,
    }
}
