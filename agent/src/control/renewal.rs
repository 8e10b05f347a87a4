//! Reads the files of certificates and tokens again, so that what was renewed needs no restart.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{Error, access::Access, certificates::Certificates};

/// How often.
const INTERVAL: Duration = Duration::from_secs(5);

/// What may be renewed.
pub(super) struct Renewal {
    certificates: Option<Arc<Certificates>>,
    tokens: Vec<Access>,
    /// What was wrong with the files, when that was told last.
    failures: Vec<String>,
}

impl Renewal {
    pub(super) const fn new(certificates: Option<Arc<Certificates>>, tokens: Vec<Access>) -> Self {
        Self { certificates, tokens, failures: Vec::new() }
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
        let failures: Vec<String> =
            looked.iter().filter_map(|of| Some(of.as_ref().err()?.to_string())).collect();
        if looked.iter().any(|of| matches!(of, Ok(true))) {
            info!("certificate, client root or token of the control interface were renewed");
        }
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            warn!(reason = failure, "what was read before stays in force");
        }
        self.failures = failures;
    }
}
