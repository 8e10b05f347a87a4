//! All examples in one pipeline: sub-topologies of one application, so that each transaction holds
//! work of several of them.

use serde_json::json;

use crate::{
    load::Record,
    random::Random,
    scene::Play,
    word_count::{self, WORD_COUNT},
};

/// Word count, pass-through, the de-duplicator and the enrichment. Its modules name their topics,
/// so it needs a broker of its own ([`Scene::on_own_broker`](crate::scene::Scene)).
pub const EXAMPLES: Play = Play {
    pipeline: "\
application: {application}
kafka:
  bootstrap.servers: {bootstrap}
  consumer:
    session.timeout.ms: 6000
    heartbeat.interval.ms: 1000
workers: 2
identity: {name}
state:
  directory: {state}
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
",
    inputs: &[
        ("lines", word_count::many_words, 150),
        ("in", anything, 150),
        ("events", event, 150),
        ("orders", order, 100),
        ("customers", customer, 50),
    ],
    outputs: &["counts", "out", "unique", "enriched"],
    repartitions: &["words"],
    stores: &["counts", "seen", "expiries", "customers"],
    check: WORD_COUNT.check,
};

/// Keys and values of any bytes, either of which may be missing.
fn anything(_: u64, random: &mut Random) -> Record {
    let mut bytes = |length: u64| -> Vec<u8> {
        let length = random.within(0..length);
        (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
    };
    let (key, value) = (bytes(20), bytes(200));
    Record {
        key: (!random.once_in(10)).then_some(key),
        value: (!random.once_in(10)).then_some(value),
        timestamp: None,
    }
}

fn event(number: u64, random: &mut Random) -> Record {
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
