//! Speaks with a running agent as its operator does: by the command line, and over HTTP.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::agent::{Agent, binary};

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// What a command of the command line came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code.
    pub exit: i32,
    /// What it wrote to standard output.
    pub text: String,
}

impl Answer {
    /// The answer as JSON, if all is well.
    pub fn json(&self) -> Result<Value> {
        ensure!(self.exit == 0, "exit code {}: {}", self.exit, self.text);
        Ok(serde_json::from_str(&self.text)?)
    }
}

/// Runs a verb, with JSON as its output; `arguments` say which agent is meant.
pub fn run(arguments: &[&str]) -> Result<Answer> {
    let output = Command::new(binary()?)
        .args(["--output", "json"])
        .args(arguments)
        .env_remove("SIDESTREAM_CONTROL")
        .env_remove("SIDESTREAM_STATE")
        .env_remove("SIDESTREAM_PIPELINE")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(Answer { exit: output.status.code().context("it was killed")?, text })
}

/// Runs a verb on an agent, found by its state directory.
pub fn ask(agent: &Agent, arguments: &[&str]) -> Result<Value> {
    let state = agent.state_directory().display().to_string();
    let answer = run(&[arguments, &["--state", &state]].concat())?;
    answer.json().with_context(|| format!("{arguments:?}"))
}

/// Adds keys to the pipeline file of an agent that isn't running.
pub fn configure(agent: &Agent, keys: &str) -> Result<()> {
    let path = agent.pipeline_file();
    let text = std::fs::read_to_string(&path)?;
    Ok(std::fs::write(path, format!("{keys}\n{text}"))?)
}

/// Asks over HTTP: status code, content type and body.
pub fn http(address: &str, method: &str, path: &str) -> Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the headers")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    });
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    ensure!(!chunked, "a small answer has a length");
    Ok((status, kind.unwrap_or_default(), body.to_owned()))
}

/// The addresses that a process listens on, as the system tells: sorted, `ADDRESS:PORT`.
pub fn listening(process: u32) -> Result<Vec<String>> {
    let mut own = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        // A file may be closed meanwhile.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        let target = target.display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[") {
            own.push(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let path = format!("/proc/{process}/net/{table}");
        let rows = std::fs::read_to_string(Path::new(&path))?;
        for row in rows.lines().skip(1) {
            let fields: Vec<&str> = row.split_whitespace().collect();
            // State 0A listens; what is bound for UDP has state 07.
            let listens = fields[3] == if table.starts_with("tcp") { "0A" } else { "07" };
            if listens && own.iter().any(|inode| inode == fields[9]) {
                found.push(address(fields[1])?);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn address(hex: &str) -> Result<String> {
    let (ip, port) = hex.split_once(':').context("no port")?;
    let port = u16::from_str_radix(port, 16)?;
    match ip.len() {
        8 => {
            let ip = std::net::Ipv4Addr::from(u32::from_str_radix(ip, 16)?.swap_bytes());
            Ok(format!("{ip}:{port}"))
        }
        _ => Ok(format!("[{ip}]:{port}")),
    }
}

/// Reads the text format of Prometheus, strictly: every sample belongs to a metric with a type and
/// a help text before it, every series is there once, histograms rise and end at their count.
/// Gives the value of each series.
pub fn read_metrics(text: &str) -> Result<BTreeMap<String, f64>> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped: Vec<&str> = Vec::new();
    let mut series = BTreeMap::new();
    ensure!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("help without text")?;
            ensure!(!helped.contains(&name) && !help.is_empty(), "{line}");
            helped.push(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("type without name")?;
            ensure!(helped.last() == Some(&name), "{line}: its help stands before it");
            ensure!(types.insert(name, kind).is_none(), "{line}: twice");
        } else {
            let (labelled, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let name = labelled.split('{').next().unwrap_or_default();
            let family = helped.last().context("a sample before any metric")?;
            let suffix = name.strip_prefix(family).with_context(|| format!("{line} is astray"))?;
            let suffixes: &[&str] = match types.get(family) {
                Some(&"histogram") => &["_bucket", "_sum", "_count"],
                Some(&("counter" | "gauge")) => &[""],
                other => anyhow::bail!("{line}: {other:?}"),
            };
            ensure!(suffixes.contains(&suffix), "{line}: {suffix}");
            let value: f64 = value.parse().with_context(|| line.to_owned())?;
            ensure!(series.insert(labelled.to_owned(), value).is_none(), "{line}: twice");
        }
    }
    for (name, count) in series.iter().filter(|(name, _)| name.contains("_count")) {
        let all = name.replacen("_count", "_bucket", 1);
        let all = match all.strip_suffix('}') {
            Some(all) => format!("{all},le=\"+Inf\"}}"),
            None => format!("{all}{{le=\"+Inf\"}}"),
        };
        let base = name.split("_count").next().unwrap_or_default();
        if types.get(base) == Some(&"histogram") {
            ensure!(series.get(&all) == Some(count), "{name} is not {all}");
        }
    }
    Ok(series)
}
