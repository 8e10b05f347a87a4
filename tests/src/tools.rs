//! What `./dev setup` puts into the cache.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// The cache's folder: `SIDESTREAM_CACHE`, or `.cache/sidestream` of the user.
pub fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    set("SIDESTREAM_CACHE")
        .or_else(|| Some(set("HOME")?.join(".cache/sidestream")))
        .context("HOME is not set, and neither is SIDESTREAM_CACHE")
}

/// A file of the cache, which has to be there.
pub fn cached(path: &str) -> Result<PathBuf> {
    let file = cache()?.join(path);
    ensure!(file.exists(), "no {}: `./dev setup` makes it", file.display());
    Ok(file)
}

/// Runs one of Kafka's tools on a broker, with this on its standard input; gives what it said.
pub fn kafka_tool(class: &str, bootstrap: &str, arguments: &[&str], input: &str) -> Result<String> {
    let jars = cached("kafka/tools-4.3.1")?.join("*");
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars);
    command.arg(format!("org.apache.kafka.tools.{class}"));
    command.args(["--bootstrap-server", bootstrap]).args(arguments);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = pipes.spawn().context("can't run java")?;
    process.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = process.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{class} ended with {}: {said}{complaints}", output.status);
    Ok(said)
}
