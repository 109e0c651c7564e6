//! Which step comes before which.

use std::collections::HashMap;

use super::model::Step;

/// The order of the steps of a definition, by index.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// Steps named in `after`.
    pub(crate) requires: Vec<Vec<usize>>,
    /// Every step that comes later on some path.
    pub(crate) descendants: Vec<Vec<usize>>,
    pub(crate) pivot: Option<usize>,
}

impl Graph {
    /// Names that are not steps are left out; in a cycle every step is its own descendant.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let index: HashMap<&str, usize> = steps.iter().enumerate().map(|(i, step)| (step.name.as_str(), i)).collect();
        let requires: Vec<Vec<usize>> = steps
            .iter()
            .map(|step| step.after.iter().filter_map(|name| index.get(name.as_str()).copied()).collect())
            .collect();
        let descendants = (0..steps.len()).map(|start| reach(start, &requires)).collect();
        Self { requires, descendants, pivot: steps.iter().position(|step| step.pivot) }
    }

    /// Whether `late` comes after `early` on some path.
    pub(crate) fn is_after(&self, late: usize, early: usize) -> bool {
        self.descendants[early].contains(&late)
    }

    /// Whether `step` comes after the pivot.
    pub(crate) fn is_past_pivot(&self, step: usize) -> bool {
        self.pivot.is_some_and(|pivot| self.is_after(step, pivot))
    }
}

/// Everything that comes after `start`, in ascending order.
fn reach(start: usize, requires: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; requires.len()];
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        for (later, required) in requires.iter().enumerate() {
            if required.contains(&at) && !seen[later] {
                seen[later] = true;
                open.push(later);
            }
        }
    }
    (0..requires.len()).filter(|step| seen[*step]).collect()
}
