//! A transform sees what the agent gives, and does what it says.

use std::time::Duration;

use sidestream_sdk::{
    Clock, Context, Counter, Decimal, Failure, FailureKind, Histogram, Input, Json, Level, Outcome,
    Output, Punctuation, Record, Schedule, Setup, SetupError, Transform, info,
    testing::{TestDriver, TestOutput, TestRecord},
    trace,
};

fn texts(outputs: &[TestOutput]) -> Vec<String> {
    outputs.iter().map(|output| output.value::<&str>().to_owned()).collect()
}

#[test]
fn a_function_sees_each_record_as_it_came() {
    fn describe(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let (key, value) = (record.key_or_null::<&str>()?, record.value_or_null::<&str>()?);
        let place = (context.input_name(record), record.partition(), record.offset());
        let times = (record.timestamp(), context.stream_time(), context.wall_clock());
        context.emit("", &format!("{key:?} {value:?} {place:?} {times:?}"))
    }

    let builder = TestDriver::builder().input("a").input("b").output("out");
    let mut driver = builder.partition(3).wall_clock(9).start_function(describe);
    let records = [
        TestRecord::new("k", "v").timestamp(7),
        TestRecord::new("k", "v").without_key().timestamp(5).input("b"),
        TestRecord::new("k", "v").without_value().timestamp(8).offset(40),
    ];
    driver.pipe(records).unwrap();
    assert_eq!(
        texts(&driver.outputs()),
        [
            r#"Some("k") Some("v") ("a", 3, 0) (7, 7, 9)"#,
            r#"None Some("v") ("b", 3, 0) (5, 7, 9)"#,
            r#"Some("k") None ("a", 3, 40) (8, 8, 9)"#,
        ]
    );
}

/// The first example of the README and of the crate's documentation.
fn shout(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
    let text: &str = record.value()?;
    context.forward_with(record, &text.to_uppercase())
}

#[test]
fn the_first_example_takes_records_with_and_without_a_key() {
    let mut driver = TestDriver::builder().output("loud").start_function(shout);
    let record = TestRecord::new("k", "v").timestamp(7).header("h", "1");
    driver.pipe([record.clone(), record.without_key()]).unwrap();
    let outputs = driver.outputs();
    assert_eq!((outputs[0].key::<&str>(), &outputs[1].key), ("k", &None));
    for output in &outputs {
        assert_eq!((output.value::<&str>(), output.timestamp, output.header("h")), ("V", 7, "1"));
    }
}

#[test]
fn the_first_example_is_told_alike_everywhere() {
    let body = "    let text: &str = record.value()?;\n    context.forward_with(record, &text.to_uppercase())\n";
    let readme = include_str!("../../../README.md");
    let documentation = include_str!("../src/lib.rs").replace("//! ", "");
    for text in [readme, &documentation, include_str!("transform.rs")] {
        assert!(text.contains(&format!(
            "fn shout(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {{\n{body}"
        )));
    }
}

#[test]
fn stream_time_does_not_follow_what_is_no_moment() {
    fn tell(_: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let time = context.stream_time().to_string();
        context.emit("", &time)
    }

    let mut driver = TestDriver::builder().output("out").start_function(tell);
    let times = [i64::MAX, 5, i64::MIN, -2, 253_402_300_799_999, 253_402_300_800_000];
    driver.pipe(times.map(|time| TestRecord::new("k", "v").timestamp(time))).unwrap();
    let end = "253402300799999";
    assert_eq!(texts(&driver.outputs()), ["-1", "5", "5", "5", end, end]);
}

#[test]
fn what_is_forwarded_goes_on_as_it_came() {
    fn forward(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        context.forward(record);
        Ok(())
    }

    let mut driver = TestDriver::builder().output("x").output("y").start_function(forward);
    let record = TestRecord::new("k", "v").timestamp(7).header("h", "1");
    driver.pipe([record.clone(), record.without_key().without_value()]).unwrap();
    let outputs = driver.outputs();
    let names: Vec<_> = outputs.iter().map(|output| output.output.as_str()).collect();
    assert_eq!(names, ["x", "y", "x", "y"]);
    assert_eq!(outputs[0].key::<&str>(), "k");
    assert_eq!((&outputs[2].key, &outputs[2].value), (&None, &None));
    for output in &outputs {
        assert_eq!((output.timestamp, output.header("h"), output.partition), (7, "1", None));
    }
}

#[test]
fn every_part_of_a_message_can_be_said() {
    struct Say {
        output: Output<String, Json<u8>>,
    }

    impl Transform for Say {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            setup.want_headers();
            Ok(Self { output: setup.output("out")? })
        }

        fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
            self.output.message().send()?;
            let more = self.output.message().key("k").value(&Json(5)).timestamp(3).partition(2);
            more.headers(record.headers()).header("offset", &Decimal(record.offset())).send()?;
            self.output.message().headers([]).send()?;
            self.output.emit("k", &Json(6))
        }
    }

    let mut driver = TestDriver::builder().output("out").start::<Say>().unwrap();
    let record = TestRecord::new("", "").timestamp(7).header("h", "1").header("h", "2").offset(12);
    driver.pipe([record]).unwrap();
    let outputs = driver.outputs();
    assert_eq!((&outputs[0].key, &outputs[0].value), (&None, &None));
    assert_eq!((outputs[0].timestamp, outputs[0].partition), (7, None));
    assert_eq!(outputs[0].header::<&str>("h"), "2");
    assert_eq!((outputs[1].key::<&str>(), outputs[1].value::<&str>()), ("k", "5"));
    assert_eq!((outputs[1].timestamp, outputs[1].partition), (3, Some(2)));
    assert_eq!(outputs[1].headers.len(), 3);
    assert_eq!(outputs[1].header::<&str>("offset"), "12");
    assert!(outputs[2].headers.is_empty());
    assert_eq!((outputs[3].value::<&str>(), outputs[3].headers.len()), ("6", 2));
}

struct Failing {
    seen: Counter,
    sizes: Histogram,
    output: Output<String, String>,
}

impl Transform for Failing {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        Ok(Self {
            seen: setup.counter("seen"),
            sizes: setup.histogram("sizes"),
            output: setup.output("out")?,
        })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let value: &str = record.value()?;
        self.seen.add(1);
        self.sizes.observe(value.len() as f64);
        info!("saw {value}");
        self.output.emit("k", value)?;
        match value {
            "retry" => Err(Failure::retry("busy")),
            "reject" => Err(Failure::reject("wrong")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_call_that_fails_names_its_record_and_leaves_nothing_behind() {
    let value = |value: &str| TestRecord::new("k", value);
    let mut driver = TestDriver::builder().output("out").start::<Failing>().unwrap();
    let cases: [(TestRecord, FailureKind, &str); 4] = [
        (value("retry"), FailureKind::Retry, "busy"),
        (value("reject"), FailureKind::Reject, "wrong"),
        (value("").without_value(), FailureKind::Reject, "value: null"),
        (TestRecord::new("k", b"\xff"), FailureKind::Reject, "value: not UTF-8 at byte 0"),
    ];
    for (record, kind, message) in cases {
        let failure = driver.pipe([value("fine"), record]).unwrap_err();
        assert_eq!((failure.kind, failure.record), (kind, Some(1)));
        assert_eq!(failure.message, message);
    }
    driver.pipe([value("a"), value("bc")]).unwrap();
    assert_eq!(texts(&driver.outputs()), ["a", "bc"]);
    assert_eq!(driver.counter("seen"), 2);
    assert_eq!(driver.histogram("sizes"), [1.0, 2.0]);
    let lines = [(Level::Info, "saw a".to_owned()), (Level::Info, "saw bc".to_owned())];
    assert_eq!(driver.log_lines(), lines);
}

struct Punctual {
    stream: Schedule,
    output: Output<String, String>,
}

impl Transform for Punctual {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let stream = setup.schedule(Duration::from_millis(100), Clock::StreamTime)?;
        setup.schedule(Duration::from_secs(1), Clock::WallClock)?;
        Ok(Self { stream, output: setup.output("out")? })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        self.output.emit("", &format!("record {}", record.timestamp()))
    }

    fn punctuate(&mut self, due: &Punctuation, context: &mut Context<'_>) -> Outcome {
        let clock = if due.schedule() == self.stream { "stream" } else { "wall" };
        let now = (context.stream_time(), context.wall_clock());
        self.output.emit("", &format!("{clock} {} at {now:?}", due.time()))
    }
}

#[test]
fn punctuations_come_by_either_clock() {
    let mut driver = TestDriver::builder().output("out").start::<Punctual>().unwrap();
    let at = |time| TestRecord::new("", "").timestamp(time);
    driver.pipe([at(250), at(299), at(301), at(10), at(700)]).unwrap();
    driver.advance_wall_clock(Duration::from_millis(999)).unwrap();
    driver.advance_wall_clock(Duration::from_millis(2002)).unwrap();
    let outputs = driver.outputs();
    assert_eq!(
        texts(&outputs),
        [
            "record 250",
            "stream 200 at (250, 0)",
            "record 299",
            "record 301",
            "stream 300 at (301, 0)",
            "record 10",
            "record 700",
            "stream 700 at (700, 0)",
            "wall 3000 at (700, 3001)",
        ]
    );
    assert_eq!(outputs[1].timestamp, 250);
}

fn refusal<T: Transform + 'static>(config: &str) -> String {
    let config: serde_json::Value = serde_json::from_str(config).expect("JSON");
    let builder = TestDriver::builder().input("orders").input("customers").config(config);
    builder.start::<T>().map(|_| ()).expect_err("it can't work").to_string()
}

#[test]
fn a_transform_that_cannot_work_says_why() {
    struct NoSuchInput(#[expect(dead_code, reason = "only looked up")] Input);
    impl Transform for NoSuchInput {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            setup.input("order").map(Self)
        }
        fn process(&mut self, _: &Record<'_>, _: &mut Context<'_>) -> Outcome {
            Ok(())
        }
    }
    struct Configured;
    impl Transform for Configured {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            let limit: std::collections::BTreeMap<String, u64> = setup.config()?;
            if limit.is_empty() {
                Err("config: say a limit")?;
            }
            Ok(Self)
        }
        fn process(&mut self, _: &Record<'_>, _: &mut Context<'_>) -> Outcome {
            Ok(())
        }
    }
    assert_eq!(
        refusal::<NoSuchInput>("{}"),
        "the pipeline has no input `order` for this transform; it has: orders, customers"
    );
    assert_eq!(refusal::<Configured>("{}"), "config: say a limit");
    let wrong = refusal::<Configured>(r#"{"limit": "x"}"#);
    assert!(wrong.starts_with("config: invalid type: string"), "{wrong}");
    assert_eq!(
        refusal::<Failing>("{}"),
        "the pipeline has no output `out` for this transform; it has: none"
    );
}

#[test]
fn a_function_that_names_no_output_of_the_pipeline_is_told_so() {
    fn lost(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        trace!("offset {}", record.offset());
        context.output::<String, String>("elsewhere")?.emit("k", "v")
    }

    let mut driver = TestDriver::builder().output("out").start_function(lost);
    let failure = driver.pipe([TestRecord::new("", "")]).unwrap_err();
    assert_eq!(failure.message, "the pipeline has no output `elsewhere` for this transform");
}
