//! The checks: functions of what was read.

mod count;
mod dedupe;
mod enrich;
mod pass_through;
mod sequence;
mod stamped;
mod state;
mod versions;

#[cfg(test)]
mod testing;

pub use self::{
    count::{check_counts, check_rising, count_keys, count_words},
    dedupe::check_dedupe,
    enrich::{check_enriched, fold_table},
    pass_through::check_pass_through,
    stamped::{Stamps, check_stamped},
    state::{StoreCopy, check_changelog, check_stores},
    versions::check_versions,
};
