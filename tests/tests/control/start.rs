//! An agent that has not started yet, for want of brokers.

use std::{fs, path::PathBuf};

use sidestream_tests::operate::{http, listening};

use super::*;

#[test]
fn an_agent_that_waits_for_brokers_is_alive_and_not_ready() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut agent = lonely(folder.path(), "a", "http: { listen: 0 }")?;
    agent.start()?;
    let started = || Ok(ask(&agent, &["status"]).ok());
    let status = wait::until("status", PATIENCE, started).with_context(|| agent.log_tail())?;
    ensure!(status["state"] == "starting" && status["ready"] == false, "{status}");
    let address = text(&status["http_address"]);
    ensure!(http(&address, "GET", "/livez")?.0 == 200, "its loops are not there yet");
    let (code, _, body) = http(&address, "GET", "/readyz")?;
    ensure!(code == 503 && body.contains("starting"), "{code} {body}");
    let waits = || {
        let status = ask(&agent, &["status"])?;
        let reason = text(&status["not_ready_reason"]);
        Ok(reason.contains("topics; it waits:") && reason.contains("127.0.0.1:1 refuses"))
    };
    wait::until_true("what it waits for", PATIENCE, waits).with_context(|| agent.log_tail())?;
    let file = agent.pipeline_file().display().to_string();
    let checked = run(&["check", &file])?;
    ensure!(checked.exit == 4 && checked.text.contains("127.0.0.1:1 refuses"), "{checked:?}");
    ensure!(!connect(&agent)?.health("")?, "it does not serve yet");
    ensure!(listening(agent.process_id()?)? == [address], "only what is configured");
    let mode = |path: PathBuf| -> Result<u32> {
        use std::os::unix::fs::PermissionsExt;
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    };
    let socket = agent.state_directory().join(".control/socket");
    ensure!(mode(socket.clone())? == 0o600, "the socket is its user's alone");
    ensure!(mode(agent.state_directory().join(".control"))? == 0o700, "so is its folder");
    agent.terminate()?;
    ensure!(!socket.exists(), "the socket goes with the agent");
    let state = agent.state_directory().display().to_string();
    let answer = run(&["status", "--state", &state])?;
    ensure!(answer.exit == 7 && answer.text.contains("sidestream run"), "{answer:?}");
    Ok(())
}

#[test]
fn a_swap_that_cannot_be_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut agent = lonely(folder.path(), "a", "limits: { module_bytes_max: 200KiB }")?;
    let state = agent.state_directory().display().to_string();
    let file = |name: &str, bytes: usize| -> Result<String> {
        let path = folder.path().join(name);
        fs::write(&path, vec![7; bytes])?;
        Ok(path.display().to_string())
    };
    let (small, large) = (file("small.wasm", 9)?, file("large.wasm", 300 << 10)?);
    let absent = folder.path().join("absent.wasm").display().to_string();
    let swap = |file: &str| run(&["swap", "split", file, "--state", &state]);
    let away = swap(&small)?;
    ensure!(away.exit == 7 && away.text.contains("sidestream run"), "{away:?}");
    agent.start()?;
    let answers = || Ok(ask(&agent, &["status"]).ok());
    wait::until("answer", PATIENCE, answers).with_context(|| agent.log_tail())?;
    let unread = swap(&absent)?;
    ensure!(unread.exit == 5 && unread.text.contains("absent.wasm"), "{unread:?}");
    let too_large = swap(&large)?;
    ensure!(
        too_large.exit == 1 && too_large.text.contains("limits.module_bytes_max"),
        "{too_large:?}"
    );
    let rollback = run(&["rollback", "split", "--state", &state])?;
    for refused in [swap(&small)?, rollback] {
        let told: Value = serde_json::from_str(&refused.text)?;
        ensure!(refused.exit == 1 && refused.text.contains("starting"), "{refused:?}");
        ensure!(told["ok"] == false && told["phases"] == serde_json::json!([]), "{told}");
    }
    agent.terminate().map(drop)
}
