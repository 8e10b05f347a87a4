//! A pipeline that joins a stream with a table of the same partitions.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::{
    record::{Record, Topic},
    verdict::{Kind, Verdict},
};

/// The last value of each key; keys whose last value is null are not in it.
#[must_use]
pub fn fold_table(table: &Topic) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut entries = BTreeMap::new();
    for record in table.records() {
        let key = record.key.clone().unwrap_or_default();
        match &record.value {
            Some(value) => entries.insert(key, value.clone()),
            None => entries.remove(&key),
        };
    }
    entries
}

/// Checks that the output has each order once, in the order of its partition, as JSON with one more
/// field `customer`: a value that the table had for the order's key, or null where it had none; and
/// that these never go back to an older one.
pub fn check_enriched(orders: &Topic, customers: &Topic, output: &Topic, verdict: &mut Verdict) {
    verdict.compared("orders", orders.len());
    verdict.compared("output records", output.len());
    let empty = Vec::new();
    for partition in 0..orders.partitions.len().max(output.partitions.len()) {
        let of = |topic: &'_ Topic| topic.partitions.get(partition).cloned().unwrap_or_default();
        let orders_here = orders.partitions.get(partition).unwrap_or(&empty);
        let enriched = of(output);
        let differences = super::sequence::differences(orders_here, &enriched, is_of_order);
        for difference in differences {
            verdict.add(difference.kind, || {
                let order = difference.expected.map(|i| &orders_here[i]);
                let order = order.map(|r| format!("the order {} ({r})", orders.place(r)));
                let enriched = difference.actual.map(|i| &enriched[i]);
                let enriched = enriched.map(|r| format!("{} ({r})", output.place(r)));
                match (order, enriched) {
                    (Some(order), None) => format!("{order} is not in {}", output.name),
                    (Some(order), Some(enriched)) => format!("{enriched} is {order}"),
                    (None, enriched) => format!("{} is no order", enriched.unwrap_or_default()),
                }
            });
        }
        check_customers(&history(&of(customers)), &enriched, output, verdict);
    }
}

/// Whether an output is this order with a customer.
fn is_of_order(order: &Record, output: &Record) -> bool {
    let (Some(order_value), Some(mut value)) = (json(order), json(output)) else { return false };
    let has_customer =
        value.as_object_mut().is_some_and(|fields| fields.remove("customer").is_some());
    has_customer && value == order_value && order.key == output.key
}

/// All values of each key, in their order. At first there is none.
fn history(table: &[Record]) -> HashMap<Vec<u8>, Vec<Value>> {
    let mut history: HashMap<_, Vec<_>> = HashMap::new();
    for record in table {
        let versions = history.entry(record.key.clone().unwrap_or_default());
        let versions = versions.or_insert_with(|| vec![Value::Null]);
        versions.push(json(record).unwrap_or(Value::Null));
    }
    history
}

fn check_customers(
    history: &HashMap<Vec<u8>, Vec<Value>>,
    enriched: &[Record],
    output: &Topic,
    verdict: &mut Verdict,
) {
    let none = vec![Value::Null];
    let mut reached: HashMap<&[u8], usize> = HashMap::new();
    for record in enriched {
        let key = record.key.as_deref().unwrap_or_default();
        let versions = history.get(key).unwrap_or(&none);
        let customer = json(record).and_then(|value| value.get("customer").cloned());
        let customer = customer.unwrap_or(Value::Null);
        let reached = reached.entry(key).or_default();
        match versions.iter().skip(*reached).position(|version| *version == customer) {
            Some(further) => *reached += further,
            None => verdict.add(Kind::Wrong, || {
                let place = output.place(record);
                match versions.contains(&customer) {
                    true => format!("{place} ({record}) has a customer that was replaced before"),
                    false => format!("{place} ({record}) has a customer that never was"),
                }
            }),
        }
    }
}

fn json(record: &Record) -> Option<Value> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{record, topic};

    const ADA: &str = r#"{"name":"Ada"}"#;
    const BEA: &str = r#"{"name":"Bea"}"#;

    fn order(id: u32) -> Record {
        record("c", &format!(r#"{{"id":"o-{id}","amount":{id}}}"#))
    }

    fn enriched(id: u32, customer: &str) -> Record {
        record("c", &format!(r#"{{"id":"o-{id}","amount":{id},"customer":{customer}}}"#))
    }

    fn verdict(output: Vec<Record>) -> Verdict {
        let customers = topic("customers", vec![vec![record("c", ADA), record("c", BEA)]]);
        let orders = topic("orders", vec![(1..4).map(order).collect()]);
        let mut verdict = Verdict::default();
        check_enriched(&orders, &customers, &topic("enriched", vec![output]), &mut verdict);
        verdict
    }

    #[test]
    fn every_order_once_with_a_customer_of_its_time_is_good() {
        for customers in [["null", ADA, BEA], [ADA, ADA, ADA], ["null", "null", BEA]] {
            let output = (1..4).zip(customers).map(|(id, c)| enriched(id, c)).collect();
            let good = verdict(output);
            assert!(good.is_good(), "{good}");
        }
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        let all = |customers: [&str; 3]| -> Vec<_> {
            (1..4).zip(customers).map(|(id, c)| enriched(id, c)).collect()
        };
        let good = || all([ADA, ADA, BEA]);
        let check = |kind, change: &dyn Fn(&mut Vec<Record>)| {
            let mut output = good();
            change(&mut output);
            let verdict = verdict(output);
            assert!(verdict.has(kind), "{verdict}");
        };
        check(Kind::Lost, &|output| drop(output.remove(1)));
        check(Kind::Doubled, &|output| output.insert(1, output[0].clone()));
        check(Kind::Reordered, &|output| output.swap(0, 1));
        check(Kind::Invented, &|output| output.push(enriched(9, BEA)));
        check(Kind::Invented, &|output| output[1] = record("c", "{}"));
        check(Kind::Invented, &|output| output[1].value = None);
        check(Kind::Wrong, &|output| *output = all([BEA, ADA, BEA]));
        check(Kind::Wrong, &|output| *output = all([ADA, "null", BEA]));
        check(Kind::Wrong, &|output| *output = all([ADA, r#"{"name":"Eve"}"#, BEA]));
    }

    #[test]
    fn a_table_is_the_last_value_of_each_key() {
        let mut gone = record("b", "");
        gone.value = None;
        let table =
            topic("t", vec![vec![record("a", "1"), record("b", "1"), record("a", "2"), gone]]);
        assert_eq!(fold_table(&table), BTreeMap::from([(b"a".to_vec(), b"2".to_vec())]));
    }
}
