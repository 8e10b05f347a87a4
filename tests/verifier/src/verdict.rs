//! What a check found.

use std::{collections::BTreeMap, fmt};

/// How many violations are kept with their words; the others are only counted.
pub const VIOLATIONS_KEPT_MAX: usize = 50;

/// In which way something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something that must be there is not.
    Lost,
    /// Something is there more than once.
    Doubled,
    /// Something is there in the wrong place of the order.
    Reordered,
    /// Something is there that is not what it must be.
    Wrong,
    /// Something is there that nothing in the input explains.
    Invented,
    /// State went back, or is not what its changelog says.
    Wiped,
    /// The work isn't finished, so that it can't be judged.
    Unsettled,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Wrong => "wrong",
            Self::Invented => "invented",
            Self::Wiped => "wiped",
            Self::Unsettled => "unsettled",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In which way.
    pub kind: Kind,
    /// What, and where.
    pub message: String,
}

/// What a check found, and how much it looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much was compared, by what it is.
    pub compared: BTreeMap<String, u64>,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// How many violations there are, by kind.
    pub counts: BTreeMap<Kind, u64>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether something is wrong in this way.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.counts.contains_key(&kind)
    }

    /// Notes that something is wrong.
    pub fn add(&mut self, kind: Kind, message: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.violations.len() < VIOLATIONS_KEPT_MAX {
            self.violations.push(Violation { kind, message: message() });
        }
    }

    /// Notes that something was compared.
    pub fn compared(&mut self, what: &str, count: usize) {
        *self.compared.entry(what.to_owned()).or_default() += count as u64;
    }

    /// As JSON: `good`, `compared`, `counts` and `violations`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let violations: Vec<_> = self
            .violations
            .iter()
            .map(|v| serde_json::json!({ "kind": v.kind.name(), "message": v.message }))
            .collect();
        let counts: BTreeMap<_, _> = self.counts.iter().map(|(k, n)| (k.name(), n)).collect();
        serde_json::json!({
            "good": self.is_good(),
            "compared": self.compared,
            "counts": counts,
            "violations": violations,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compared: Vec<_> =
            self.compared.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let compared = compared.join(", ");
        if self.is_good() {
            return write!(f, "exact: nothing lost, doubled, reordered or wiped in {compared}");
        }
        let counts: Vec<_> = self.counts.iter().map(|(k, n)| format!("{n} {}", k.name())).collect();
        write!(f, "not exact: {} in {compared}", counts.join(", "))?;
        for violation in &self.violations {
            write!(f, "\n  {}: {}", violation.kind.name(), violation.message)?;
        }
        let more = self.counts.values().sum::<u64>() - self.violations.len() as u64;
        match more {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
