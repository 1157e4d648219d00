//! Equal JSON values are kept once.
//!
//! A hundred devices of one template have the same fifty addresses and the same labels; each would be a map with nodes of
//! its own on the heap, half a kilobyte and more.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value as Json;

/// Values before the first sweep.
const MIN_SWEEP: usize = 1024;

/// Values that are in use somewhere.
#[derive(Debug, Default)]
pub struct Pool {
    values: HashSet<Arc<Json>>,
    sweep_at: usize,
}

impl Pool {
    /// The value, shared with all equal ones.
    pub fn share(&mut self, value: Json) -> Arc<Json> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = 2 * self.values.len();
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_are_one_and_those_not_used_go() {
        let mut pool = Pool::default();
        let first = pool.share(json!({ "address": "holding:1" }));
        assert!(Arc::ptr_eq(&first, &pool.share(json!({ "address": "holding:1" }))));
        for number in 0..10 * MIN_SWEEP {
            assert_eq!(*pool.share(json!(number)), json!(number));
        }
        assert!(pool.values.len() <= MIN_SWEEP + 1, "{}", pool.values.len());
        assert!(Arc::ptr_eq(&first, &pool.share(json!({ "address": "holding:1" }))));
    }
}
