//! Joins orders with a table of customers. Both have the customer's id as their key, and JSON
//! values: an order `{"id": "o-1", "amount": 1200}`, a customer `{"name": "Ada", "tier": "gold"}`;
//! a customer without a value is gone. An order comes out with its customer, or null:
//! `{"id": "o-1", "amount": 1200, "customer": {"name": "Ada", "tier": "gold"}}`.

use serde::{Deserialize, Serialize};
use sidestream_sdk::{
    Context, Input, Json, Outcome, Output, Record, Setup, SetupError, Store, Transform,
};

#[derive(Serialize, Deserialize)]
struct Customer {
    name: String,
    tier: String,
}

#[derive(Deserialize)]
struct Order {
    id: String,
    amount: u64,
}

#[derive(Serialize)]
struct EnrichedOrder {
    id: String,
    amount: u64,
    customer: Option<Customer>,
}

struct Enrich {
    customers_input: Input,
    customers: Store<String, Json<Customer>>,
    output: Output<String, Json<EnrichedOrder>>,
}

impl Transform for Enrich {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        setup.input("orders")?;
        Ok(Self {
            customers_input: setup.input("customers")?,
            customers: setup.store("customers")?.prefetched(),
            output: setup.output("enriched")?,
        })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let customer_id: &str = record.key()?;
        if record.input() == self.customers_input {
            return match record.value_or_null::<Json<Customer>>()? {
                Some(customer) => self.customers.put(customer_id, &customer),
                None => self.customers.delete(customer_id),
            };
        }
        let Json(Order { id, amount }) = record.value()?;
        let customer = self.customers.get(customer_id)?.map(|Json(customer)| customer);
        self.output.emit(customer_id, &Json(EnrichedOrder { id, amount, customer }))
    }
}

sidestream_sdk::transform!(Enrich);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    fn driver() -> TestDriver {
        let builder = TestDriver::builder().input("orders").input("customers");
        builder.output("enriched").store("customers").start::<Enrich>().unwrap()
    }

    fn order(customer: &str, id: &str) -> TestRecord {
        TestRecord::new(customer, &format!(r#"{{"id":"{id}","amount":5}}"#)).input("orders")
    }

    fn customer(id: &str, name: &str) -> TestRecord {
        let value = format!(r#"{{"name":"{name}","tier":"gold"}}"#);
        TestRecord::new(id, &value).input("customers")
    }

    #[test]
    fn an_order_gets_its_customer_as_of_then() {
        let mut driver = driver();
        let records = [
            order("c", "before"),
            customer("c", "Ada"),
            order("c", "first"),
            customer("c", "Grace"),
            order("c", "second"),
            customer("c", "").without_value(),
            order("c", "after"),
        ];
        driver.pipe(records).unwrap();
        let outputs = driver.outputs();
        let values: Vec<&str> = outputs.iter().map(|output| output.value()).collect();
        let expected = |id: &str, customer: &str| {
            format!(r#"{{"id":"{id}","amount":5,"customer":{customer}}}"#)
        };
        assert_eq!(
            values,
            [
                expected("before", "null"),
                expected("first", r#"{"name":"Ada","tier":"gold"}"#),
                expected("second", r#"{"name":"Grace","tier":"gold"}"#),
                expected("after", "null"),
            ]
        );
        assert!(outputs.iter().all(|output| output.key::<&str>() == "c"));
    }

    #[test]
    fn an_order_that_is_none_is_rejected() {
        let record = TestRecord::new("c", r#"{"id":"o"}"#);
        let failure = driver().pipe([record]).unwrap_err();
        assert_eq!(failure.record, Some(0));
        let message = "value: JSON: missing field `amount` at line 1 column 10";
        assert_eq!(failure.message, message);
    }
}
