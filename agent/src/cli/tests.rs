use clap::{CommandFactory, Parser};

use super::{
    arguments::{Arguments, Verb},
    exit::Exit,
    finding::{About, Finding, exit, of_pipeline},
    output::OutputFormat,
    *,
};
use crate::config::{Position, Problem};

#[test]
fn the_arguments_are_sound() {
    Arguments::command().debug_assert();
    let drain = ["sidestream", "drain", "--leave", "--state", "s"];
    assert!(Arguments::try_parse_from(drain).is_ok());
    let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
    for line in
        ["swap count m.wasm --dry-run", "swap count m.wasm --no-wait", "rollback count --to 3f"]
    {
        assert!(parse(&format!("sidestream {line} --state s")).is_ok(), "{line}");
    }
    for line in ["status p.yaml", "top p.yaml", "drain p.yaml --leave", "events p.yaml -f"] {
        assert!(parse(&format!("sidestream {line}")).is_ok(), "{line}");
    }
    for line in ["swap count", "swap count m.wasm --dry-run --no-wait", "rollback count --to x"] {
        let error = parse(&format!("sidestream {line} --state s")).unwrap_err();
        assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
    }
    let arguments =
        Arguments::try_parse_from(["sidestream", "check", "p.yaml", "--output", "json"]).unwrap();
    assert_eq!(arguments.output, OutputFormat::Json);
    assert!(matches!(arguments.verb, Verb::Check { offline: false, .. }));
    let error = Arguments::try_parse_from(["sidestream", "walk"]).unwrap_err();
    assert_eq!(error.exit_code(), Exit::Usage as i32);
}

#[test]
fn the_help_tells_every_exit_code() {
    let help = Arguments::command().render_long_help().to_string();
    for code in [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Pipeline,
        Exit::Topics,
        Exit::Module,
        Exit::State,
        Exit::Agent,
    ] {
        assert!(help.contains(&format!("\n  {}  ", code as u8)), "{code:?}");
    }
}

#[test]
fn what_to_put_right_first_decides_the_exit_code() {
    let finding = |about| Finding::new(about, "");
    assert_eq!(exit(&[]), Exit::Ok);
    assert_eq!(exit(&[finding(About::Module), finding(About::Topics)]), Exit::Topics);
    assert_eq!(exit(&[finding(About::Run)]), Exit::Failed);
    assert_eq!(exit(&[finding(About::Run), finding(About::State)]), Exit::State);
}

#[test]
fn a_finding_tells_place_and_remedy_in_both_forms() {
    let at = Position { line: 4, column: 1 };
    let problems = vec![
        Problem::new(at, "unknown key `transfroms`", "did you mean `transforms`?"),
        Problem { at: None, message: "it is empty".into(), remedy: String::new() },
    ];
    let file = Path::new("p.yaml");
    let findings = of_pipeline(file, config::Error::Refused { path: file.into(), problems });
    assert_eq!(
        findings[0].to_string(),
        "p.yaml:4:1: unknown key `transfroms`\n    did you mean `transforms`?"
    );
    assert_eq!(findings[1].to_string(), "p.yaml: it is empty");
    assert_eq!(
        serde_json::to_value(&findings[0]).unwrap(),
        serde_json::json!({
            "about": "pipeline",
            "file": "p.yaml",
            "line": 4,
            "column": 1,
            "message": "unknown key `transfroms`",
            "remedy": "did you mean `transforms`?",
        })
    );
}

#[test]
fn the_command_line_goes_before_the_file_for_logs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let pipeline = "application: a\nkafka: {bootstrap.servers: b}\nlog: {level: warn, format: json}\n\
                    transforms: [{name: t, module: m, inputs: [x]}]\n";
    std::fs::write(&file, pipeline).unwrap();
    let pipeline = load(&file).unwrap();
    let config = |arguments: &[&str]| {
        let all = ["sidestream", "schema"].iter().chain(arguments);
        log_config(&Arguments::try_parse_from(all).unwrap(), &pipeline)
    };
    let format = telemetry::Format::Json;
    let level = tracing::Level::WARN;
    assert_eq!(config(&[]), telemetry::Config { level, format });
    let level = tracing::Level::TRACE;
    assert_eq!(config(&["--log-level", "trace"]), telemetry::Config { level, format });
    let format = telemetry::Format::Text;
    let config = config(&["--log-level", "trace", "--log-format", "text"]);
    assert_eq!(config, telemetry::Config { level, format });
}

#[test]
fn an_unknown_kafka_property_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let pipeline = "application: a\nkafka:\n  bootstrap.server: b\n  bootstrap.servers: b\n\
                    transforms: [{name: t, module: m, inputs: [x]}]\n";
    std::fs::write(&file, pipeline).unwrap();
    let findings = load(&file).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].line, findings[0].column), (Some(3), Some(3)));
    assert_eq!(findings[0].remedy, "did you mean `bootstrap.servers`?");
}

#[test]
fn values_of_kafka_properties_are_checked_without_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let check = |property: &str, expected: (&str, &str)| {
        let pipeline = format!(
            "application: a\nkafka:\n  bootstrap.servers: b\n  {property}\n\
             transforms: [{{name: t, module: m, inputs: [x]}}]\n"
        );
        std::fs::write(&file, pipeline).unwrap();
        let findings = load(&file).unwrap_err();
        assert_eq!((findings.len(), findings[0].line), (1, Some(4)), "{property}");
        assert_eq!((findings[0].message.as_str(), findings[0].remedy.as_str()), expected);
    };
    check(
        "enable.ssl.certificate.verification: yes",
        ("`kafka.enable.ssl.certificate.verification` can't be `yes`", "write one of: true, false"),
    );
    check("linger.ms: soon", ("`kafka.linger.ms` can't be `soon`", "write a number: 0 .. 900000"));
    check(
        "ssl.truststore.location: x.jks",
        (
            "`kafka.ssl.truststore.location` is no property of librdkafka, but of Java's clients",
            "use `ssl.ca.location`, a file in PEM",
        ),
    );
}

#[test]
fn a_state_directory_that_can_not_be_written_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let check = |directory: &str| {
        let pipeline = format!(
            "application: a\nkafka: {{bootstrap.servers: b}}\nstate: {{directory: {directory}}}\n\
             transforms: [{{name: t, module: m, inputs: [x]}}]\n"
        );
        std::fs::write(&file, pipeline).unwrap();
        crate::app::check_state(&load(&file).unwrap())
    };
    assert_eq!(check("made/when/needed"), None);
    let problem = check("/proc/nope").unwrap();
    assert_eq!(problem.at, Some(Position { line: 3, column: 20 }));
    assert!(problem.message.starts_with("can't write to /proc: "), "{problem}");
    assert!(problem.remedy.contains("`state.directory`"), "{problem}");
}

#[test]
fn what_is_wrong_with_a_module_file_is_told_with_the_place_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    std::fs::write(folder.path().join("text.wasm"), "(component)").unwrap();
    std::fs::write(folder.path().join("cut.wasm"), b"\0asm\x0d\0").unwrap();
    let pipeline = "application: a\nkafka: {bootstrap.servers: b}\ntransforms:\n\
                    - {name: t, inputs: [x], module: text.wasm}\n\
                    - name: u\n  module: cut.wasm\n  inputs: [x]\n\
                    - name: v\n  inputs: [x]\n  module: absent.wasm\n";
    std::fs::write(&file, pipeline).unwrap();
    let errors = crate::app::check_modules(&load(&file).unwrap(), &mut |_| {});
    let findings: Vec<Finding> =
        errors.into_iter().flat_map(|error| finding::of_agent(&file, error)).collect();
    let expected = [
        (4, 34, "text.wasm` is not WebAssembly"),
        (6, 11, "cut.wasm` is cut off"),
        (10, 11, "can't read the module"),
    ];
    assert_eq!(findings.len(), expected.len(), "{findings:?}");
    for (found, (line, column, message)) in findings.iter().zip(expected) {
        assert_eq!((found.line, found.column), (Some(line), Some(column)), "{found}");
        assert!(found.message.contains(message), "{found}");
        let place = format!("{}:{line}:{column}: ", file.display());
        assert!(found.to_string().starts_with(&place), "{found}");
    }
}
