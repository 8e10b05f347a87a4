//! Which transforms work in one task.

use std::collections::BTreeMap;

use crate::config::{
    order,
    pipeline::{Source, Transform},
    upstream,
};

/// The transforms (as indices) of each sub-topology, each transform after those that hand records
/// to it. Sub-topologies are in the order of their first transforms in the file.
pub(super) fn groups(transforms: &[Transform]) -> Vec<Vec<usize>> {
    let mut union = Union { parent: (0..transforms.len()).collect() };
    let mut readers: BTreeMap<(bool, &str), usize> = BTreeMap::new();
    for (index, transform) in transforms.iter().enumerate() {
        for from in upstream(transforms, index) {
            union.join(from, index);
        }
        for input in &transform.inputs {
            let topic = match &input.source {
                Source::Topic { name, .. } => (false, name.as_str()),
                Source::Repartition { name } => (true, name.as_str()),
                Source::Transform { .. } => continue,
            };
            let first = *readers.entry(topic).or_insert(index);
            union.join(first, index);
        }
    }
    let order = order(transforms).expect("a pipeline with a circle was refused");
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in order {
        groups.entry(union.root(index)).or_default().push(index);
    }
    groups.into_values().collect()
}

/// Disjoint sets of transforms; the root of each is its lowest index.
struct Union {
    parent: Vec<usize>,
}

impl Union {
    fn root(&self, mut index: usize) -> usize {
        while self.parent[index] != index {
            index = self.parent[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }
}
