//! Who may ask.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sidestream::control::client::Error;
use sidestream_tests::operate::listening;

use super::*;

/// A root, and a certificate and key for 127.0.0.1 signed by it, as files.
pub(super) fn certificates(folder: &Path, name: &str) -> Result<[PathBuf; 3]> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key)?;
    let key = KeyPair::generate()?;
    let signed = CertificateParams::new(vec!["127.0.0.1".to_owned()])?
        .signed_by(&key, &Issuer::new(root, root_key))?;
    let write = |kind: &str, pem: String| -> Result<PathBuf> {
        let path = folder.join(format!("{name}-{kind}.pem"));
        fs::write(&path, pem)?;
        Ok(path)
    };
    Ok([
        write("root", root_certificate.pem())?,
        write("certificate", signed.pem())?,
        write("key", key.serialize_pem())?,
    ])
}

/// Every call, with what it comes to.
fn calls(client: &mut Client) -> Vec<(&'static str, Result<(), Error>)> {
    use sidestream::control::proto::{
        GetRequest, RollbackRequest, ScanRequest, SwapRequest, WatchEventsRequest,
    };
    let get = GetRequest { store: "s".into(), keys: vec![vec![1]], ..GetRequest::default() };
    let watch = WatchEventsRequest { only_past: true, ..WatchEventsRequest::default() };
    let (transform, module) = ("split".to_owned(), b"\0asm".to_vec());
    let rollback = RollbackRequest { transform: transform.clone(), ..RollbackRequest::default() };
    let swap = SwapRequest { transform, module, ..SwapRequest::default() };
    vec![
        ("status", client.status().map(drop)),
        ("resume", client.resume()),
        ("retry", client.retry(Vec::new()).map(drop)),
        ("get", client.get(get).map(drop)),
        ("scan", client.scan(ScanRequest::default()).map(drop)),
        ("events", client.events(watch, |_| true)),
        ("swap", client.swap(swap, |_| true)),
        ("rollback", client.rollback(rollback, |_| true)),
        ("reflection", client.services().map(drop)),
        ("drain", client.drain(None)),
    ]
}

#[test]
fn who_brings_no_token_or_certificate_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [root, certificate, key] = certificates(folder.path(), "server")?;
    let [client_root, client_certificate, client_key] = certificates(folder.path(), "client")?;
    let token_file = folder.path().join("token");
    fs::write(&token_file, "a token that nobody guesses\n")?;
    let wrong_token = folder.path().join("wrong");
    fs::write(&wrong_token, "a token that somebody guessed\n")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let keys = format!(
        "control:\n  listen: 127.0.0.1:{port}\n  token_file: {}\n  tls:\n    certificate: {}\n    \
         key: {}\n    client_ca: {}",
        token_file.display(),
        certificate.display(),
        key.display(),
        client_root.display()
    );
    let mut agent = lonely(folder.path(), "a", &keys)?;
    agent.start()?;
    let whole = Target {
        address: format!("https://127.0.0.1:{port}"),
        token_file: Some(token_file),
        ca: Some(root),
        identity: Some((client_certificate, client_key)),
    };
    let answers = || Ok(Client::connect(&whole).ok().and_then(|mut c| c.status().ok()));
    wait::until("answer", PATIENCE, answers).with_context(|| agent.log_tail())?;
    for token_file in [None, Some(wrong_token)] {
        let mut client = Client::connect(&Target { token_file, ..whole.clone() })?;
        // A pause that is allowed waits for workers, which an agent without brokers has none of.
        let pause = ("pause", client.pause().map(drop));
        for (call, outcome) in calls(&mut client).into_iter().chain([pause]) {
            ensure!(matches!(outcome, Err(Error::Unauthenticated(_))), "{call}: {outcome:?}");
        }
        client.health("")?; // For probes, which can't bring one.
    }
    let nobody = Target { identity: None, ..whole.clone() };
    let refused = Client::connect(&nobody).and_then(|mut client| client.health("").map(drop));
    ensure!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
    let plain = Target { address: format!("http://127.0.0.1:{port}"), ..whole.clone() };
    let refused = Client::connect(&plain).and_then(|mut client| client.status().map(drop));
    ensure!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
    ensure!(agent.is_running()?, "nobody could drain it");
    ensure!(listening(agent.process_id()?)? == [format!("127.0.0.1:{port}")], "one address");
    for (call, outcome) in calls(&mut Client::connect(&whole)?) {
        // Stores are not there before the brokers are.
        let allowed = matches!(outcome, Ok(()) | Err(Error::Refused(_)));
        ensure!(allowed, "{call}: {outcome:?}");
    }
    agent.wait_for_end().map(drop)
}

#[test]
fn beyond_this_machine_it_does_not_start_without_asking_who_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut agent = lonely(folder.path(), "a", "control: { listen: '0.0.0.0:0' }")?;
    agent.start()?;
    let status = agent.wait_for_end()?;
    ensure!(status.code() == Some(3), "{status}");
    ensure!(agent.log().contains("control.token_file"), "{}", agent.log());
    // On this machine it does, and warns.
    let mut agent = lonely(folder.path(), "b", "control: { listen: '127.0.0.1:0' }")?;
    agent.start()?;
    agent.wait_for_log("may swap modules and drain")?;
    agent.terminate().map(drop)
}
