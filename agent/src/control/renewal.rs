//! Reads the files of certificates and tokens again, so that what was renewed needs no restart.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    Error, Events,
    access::{Access, open_to_all},
    certificates::Certificates,
};

/// How often.
const INTERVAL: Duration = Duration::from_secs(5);

/// What may be renewed.
pub(super) struct Renewal {
    certificates: Option<Arc<Certificates>>,
    tokens: Vec<Access>,
    events: Arc<Events>,
    /// The kinds of events, and what was told, by the last look.
    told: Vec<(&'static str, String)>,
}

impl Renewal {
    pub(super) const fn new(
        certificates: Option<Arc<Certificates>>,
        tokens: Vec<Access>,
        events: Arc<Events>,
    ) -> Self {
        Self { certificates, tokens, events, told: Vec::new() }
    }

    /// Whether there is nothing to be renewed.
    pub(super) fn is_idle(&self) -> bool {
        self.certificates.is_none() && !self.tokens.iter().any(Access::asks)
    }

    /// Looks at the files now and then, until the runtime ends.
    pub(super) async fn run(mut self) {
        loop {
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            // A panic in it is told already; what was read stays in force.
            let Ok(looked) = looked.await else { return };
            self = looked;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn look(&mut self) {
        let certificates = self.certificates.iter().map(|of| of.refresh());
        let looked: Vec<Result<bool, Error>> =
            certificates.chain(self.tokens.iter().map(Access::refresh)).collect();
        if looked.iter().any(|of| matches!(of, Ok(true))) {
            info!("certificate, client root or token of the control interface were renewed");
        }
        let failed = |error: Error| {
            ("control_files_unusable", format!("{error}; what was read before stays in force"))
        };
        let mut tell: Vec<_> = looked.into_iter().filter_map(Result::err).map(failed).collect();
        let ending = self.certificates.as_ref().and_then(|of| of.ending(Timestamp::now()));
        tell.extend(ending.map(|(message, _)| ("certificate_ends", message)));
        let secrets = self.certificates.iter().map(|of| of.key_file());
        let secrets = secrets.chain(self.tokens.iter().filter_map(Access::file));
        tell.extend(secrets.filter_map(open_to_all).map(|message| ("secret_readable", message)));
        for (kind, message) in tell.iter().filter(|one| !self.told.contains(one)) {
            warn!(message, "the control interface");
            self.events.tell(kind, message);
        }
        self.told = tell;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{super::validity::tests::certificate, *};
    use crate::config::Tls;

    #[test]
    fn what_is_wrong_is_an_event_once_and_what_was_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = Tls { certificate: path("certificate"), key: path("key"), client_ca: None };
        let write = |until| {
            let ([pem, key], _) = certificate((2000, 1, 1), until);
            fs::write(&files.certificate, pem).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        let close = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write((2100, 1, 1));
        fs::write(path("token"), "a token that nobody guesses").unwrap();
        close("key", 0o644);
        close("token", 0o644);
        let token = Access::read("control.token_file", Some(&path("token"))).unwrap();
        let certificates = Arc::new(Certificates::read(&files).unwrap());
        let events = Arc::new(Events::default());
        let mut renewal = Renewal::new(Some(certificates), vec![token], Arc::clone(&events));
        let mut look = || {
            let before = events.after(0, usize::MAX).events.len();
            (0..2).for_each(|_| renewal.look());
            let told = events.after(0, usize::MAX).events.split_off(before);
            told.into_iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        assert_eq!(look(), ["secret_readable"; 2]);
        close("key", 0o640);
        close("token", 0o600);
        assert!(look().is_empty());
        fs::write(path("token"), "short").unwrap();
        fs::write(path("key"), "broken").unwrap();
        assert_eq!(look(), ["control_files_unusable"; 2]);
        write((2001, 1, 1));
        fs::write(path("token"), "a token that was made anew").unwrap();
        assert_eq!(look(), ["certificate_ends"]);
        write((2100, 1, 1));
        assert!(look().is_empty());
    }
}
