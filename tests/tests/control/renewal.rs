//! Certificates and tokens that are renewed while an agent runs.

use std::{fs, path::Path};

use sidestream::control::client::Error;

use super::{access::certificates, *};

/// Puts a file in the place of another one at once.
fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, content)?;
    Ok(fs::rename(beside, file)?)
}

#[test]
fn renewed_certificates_and_tokens_count_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [root, certificate, key] = certificates(folder.path(), "server")?;
    let [renewed_root, renewed, renewed_key] = certificates(folder.path(), "renewed")?;
    let token_file = folder.path().join("token");
    fs::write(&token_file, "a token that nobody guesses\n")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let keys = format!(
        "control:\n  listen: 127.0.0.1:{port}\n  token_file: {}\n  tls:\n    certificate: {}\n    \
         key: {}",
        token_file.display(),
        certificate.display(),
        key.display(),
    );
    let mut agent = lonely(folder.path(), "a", &keys)?;
    agent.start()?;
    let brought = folder.path().join("brought");
    fs::copy(&token_file, &brought)?;
    let old = Target {
        address: format!("https://127.0.0.1:{port}"),
        token_file: Some(brought),
        ca: Some(root),
        identity: None,
    };
    let status = |target: &Target| Client::connect(target).and_then(|mut client| client.status());
    let answers = |target: &Target| {
        let answers = || Ok(status(target).is_ok());
        wait::until_true("answer", PATIENCE, answers).with_context(|| agent.log_tail())
    };
    answers(&old)?;
    // A client that does not shake hands does not keep its connection.
    let mut silent = std::net::TcpStream::connect(("127.0.0.1", port))?;
    silent.set_read_timeout(Some(PATIENCE))?;
    ensure!(std::io::Read::read(&mut silent, &mut [0; 16])? == 0, "it is closed");
    // Half a renewal is none: the key is still that of the certificate before.
    let before = fs::read(&certificate)?;
    replace(&certificate, b"broken")?;
    agent.wait_for_log("what was read before stays in force")?;
    answers(&old)?;
    replace(&certificate, &before)?;
    replace(&certificate, &fs::read(renewed)?)?;
    replace(&key, &fs::read(renewed_key)?)?;
    let new_token = folder.path().join("new-token");
    fs::write(&new_token, "a token that was made anew\n")?;
    replace(&token_file, &fs::read(&new_token)?)?;
    let new = Target { token_file: Some(new_token), ca: Some(renewed_root), ..old.clone() };
    answers(&new)?;
    let refused = status(&old);
    ensure!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
    let old_token = Target { token_file: old.token_file, ..new };
    let refused = status(&old_token);
    ensure!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    agent.terminate().map(drop)
}
