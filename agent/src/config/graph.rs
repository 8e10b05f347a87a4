//! How transforms hang together inside the process.

use crate::config::pipeline::{Source, Transform};

/// The order in which each transform comes after those that hand records to it, otherwise the
/// order of the file; or the transforms of a circle. Hand-overs that lead nowhere are left out.
pub(crate) fn order(transforms: &[Transform]) -> Result<Vec<usize>, Vec<usize>> {
    let mut order = Vec::with_capacity(transforms.len());
    let mut done = vec![false; transforms.len()];
    while order.len() < transforms.len() {
        let ready = (0..transforms.len())
            .find(|&i| !done[i] && upstream(transforms, i).all(|from| done[from]));
        let Some(next) = ready else {
            return Err(circle(transforms, &done));
        };
        done[next] = true;
        order.push(next);
    }
    Ok(order)
}

/// The transforms that hand records to `index`.
pub(crate) fn upstream(transforms: &[Transform], index: usize) -> impl Iterator<Item = usize> + '_ {
    transforms[index].inputs.iter().filter_map(|input| match &input.source {
        Source::Transform { transform, .. } => {
            transforms.iter().position(|other| other.name == *transform)
        }
        Source::Topic { .. } | Source::Repartition { .. } => None,
    })
}

/// Walks up from a transform that is not done until one comes again.
fn circle(transforms: &[Transform], done: &[bool]) -> Vec<usize> {
    let mut path = Vec::new();
    let mut next = done.iter().position(|done| !done);
    while let Some(index) = next {
        if let Some(start) = path.iter().position(|&seen| seen == index) {
            path.drain(..start);
            break;
        }
        path.push(index);
        next = upstream(transforms, index).find(|&from| !done[from]);
    }
    path.reverse();
    path
}
