//! Finds the valid name that was probably meant.

/// The one of `valid` that `written` was probably meant to be, if one is close enough.
#[must_use]
pub(crate) fn nearest<'a>(
    written: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance_max = (written.chars().count() / 3).max(1);
    valid
        .into_iter()
        .map(|name| (distance(&plain(written), &plain(name)), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A remedy that names the nearest of `valid`, or else all of them.
#[must_use]
pub(crate) fn did_you_mean<'a>(
    written: &str,
    valid: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if let Some(name) = nearest(written, valid.clone()) {
        return format!("did you mean `{name}`?");
    }
    let all: Vec<_> = valid.into_iter().map(|name| format!("`{name}`")).collect();
    match all.as_slice() {
        [] => "there is none".into(),
        [only] => format!("only {only} is known here"),
        _ => format!("known here are {}", all.join(", ")),
    }
}

/// How many slips apart two names are; one that only goes on is one slip away.
fn distance(written: &str, name: &str) -> usize {
    const STEM_LENGTH_MIN: usize = 4;
    if written.len() >= STEM_LENGTH_MIN && name.starts_with(written) && name != written {
        return 1;
    }
    strsim::damerau_levenshtein(written, name)
}

/// Hyphen or underscore, capital or not: a slip that is worth nothing.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let valid = ["transforms", "application", "commit_interval"];
        assert_eq!(nearest("transfroms", valid), Some("transforms"));
        assert_eq!(nearest("Commit-Interval", valid), Some("commit_interval"));
        assert_eq!(nearest("commit", valid), Some("commit_interval"));
        assert_eq!(nearest("replicas", valid), None);
    }

    #[test]
    fn without_a_near_name_all_are_told() {
        assert_eq!(did_you_mean("x", ["one", "two"]), "known here are `one`, `two`");
        assert_eq!(did_you_mean("x", ["one"]), "only `one` is known here");
    }
}
